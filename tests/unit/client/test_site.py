from pathlib import Path

import numpy as np
import pytest
import torch

from client import site as module
from client.site import Site, simulated
from fedprompt.backbone.clip import FrozenClip
from fedprompt.basis import columns
from fedprompt.data import load
from fedprompt.errors import ConfigError, PromptError
from fedprompt.identity import sha256_arrays
from fedprompt.prompt_state import PromptState
from fedprompt.prompts.template import Template
from fedprompt.settings.run_config import RunConfig
from fedprompt.settings.section import Flat
from fedprompt.wire import identity_digest
from tests.pictures import image_folder


def site_of(settings: Flat, number: int, sites: int) -> Site:
    """Return a simulated site of flat settings."""
    return simulated(RunConfig.parse(settings), number, sites)


@pytest.fixture(autouse=True)
def loaded(clip: FrozenClip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "shared_backbone", lambda config: clip)
    load.inspect.cache_clear()
    load._parts.cache_clear()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_folder(tmp_path_factory.mktemp("images"), ("cat", "dog"), 12)


@pytest.fixture
def settings(folder: Path) -> Flat:
    return {
        "data.source": str(folder),
        "data.partitioner": "iid",
        "data.test_share": 0.0,
        "fit.batch": 4,
        "prompt.dropout": 0.5,
    }


FIXED = {"prompt.method": "dip-fixed"}  # A and B are trained and sent


def digest(site: Site, arrays: PromptState | None = None, **changes: int) -> str:
    asked = {"seed": 1, "server_round": 1, "rounds": 4, "mu": 0.0, **changes}
    return sha256_arrays(site.train(arrays or site.prompt.arrays(), **asked)[0])


def start(site: Site) -> PromptState:
    return site.prompt.arrays()


def test_images_are_divided_and_held_out(settings: Flat) -> None:
    sites = [site_of(settings, partition, 3) for partition in range(3)]
    held = [len(site.held_labels) for site in sites]
    trained = [len(site.train_labels) for site in sites]
    assert sum(held) + sum(trained) == 24
    assert all(h > 0 for h in held)
    assert all(len(s.train_images) == len(s.train_labels) for s in sites)
    assert all(site.classes == ("cat", "dog") for site in sites)


def test_sites_show_one_identity(settings: Flat) -> None:
    first, second = (
        site_of(settings, 0, 2),
        site_of(settings, 1, 2),
    )
    assert first.identity == second.identity
    assert first.digest == identity_digest(first.identity)
    fixed = {**settings, **FIXED}
    assert site_of({**fixed, "fit.rank": 1, "prompt.rank": 2}, 0, 2).digest == (
        site_of(fixed, 0, 2).digest
    )
    other = site_of({**settings, "data.template": "a {}."}, 0, 2)
    assert other.digest != first.digest


def test_training_depends_on_seed_round_partition_and_nothing_before(settings: Flat) -> None:
    site = site_of(settings, 0, 2)
    sent = start(site)
    first = digest(site, sent)
    others = [
        digest(site, sent, seed=2),
        digest(site, sent, server_round=2),
        digest(site_of(settings, 1, 2), sent),
    ]
    assert len({first, *others}) == 4
    assert digest(site, sent) == first
    assert digest(site_of(settings, 0, 2), sent) == first
    assert all(np.array_equal(sent[name], array) for name, array in start(site).items()) is False


def test_what_is_sent_is_where_training_starts(settings: Flat) -> None:
    site = site_of(settings, 0, 2)
    moved = PromptState({name: array + 1 for name, array in start(site).items()})
    kept = {name: array.copy() for name, array in moved.items()}
    assert digest(site, moved) != digest(site, start(site_of(settings, 0, 2)))
    assert all(np.array_equal(moved[name], kept[name]) for name in kept)


def test_the_round_places_the_learning_rate(
    settings: Flat, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(
        module, "fit", lambda *_, window, mu, **__: seen.append((window, mu)) or 0.5
    )
    site = site_of(settings, 0, 2)
    _, loss = site.train(start(site), seed=1, server_round=3, rounds=4, mu=0.25)
    assert (loss, seen[0][0].start, seen[0][0].end, seen[0][1]) == (0.5, 0.5, 0.75, 0.25)


def test_a_site_without_images_abstains(settings: Flat) -> None:
    uneven = {**settings, **FIXED, "data.partitioner": "dirichlet", "data.alpha": 0.001}
    sites = [site_of(uneven, partition, 8) for partition in range(8)]
    empty = next(site for site in sites if not len(site.train_labels))
    sent = start(empty)
    assert empty.train(sent, seed=1, server_round=1, rounds=1, mu=0.0) == (sent, 0.0)
    assert empty.evaluate(sent).count == 0
    assert sum(len(site.train_labels) + len(site.held_labels) for site in sites) == 24


@pytest.mark.parametrize("rank", [1, 2])
def test_a_site_may_train_at_a_smaller_rank(settings: Flat, rank: int) -> None:
    site = site_of({**settings, **FIXED, "prompt.rank": 3, "fit.rank": rank}, 0, 2)
    sent = start(site)
    assert sent["ctx.A"].shape == (4, 3)
    arrays, _ = site.train(sent, seed=1, server_round=1, rounds=2, mu=0.0)
    assert {n: a.shape for n, a in arrays.items()} == {"ctx.A": (4, rank), "ctx.B": (rank, 32)}
    assert arrays["ctx.B"].any()
    assert site.evaluate(sent).count == len(site.held_labels)


@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
@pytest.mark.parametrize("rank", [0, 1, 2])
def test_a_rate_of_zero_learns_nothing(settings: Flat, rank: int, optimiser: str) -> None:
    """What comes back is what the site began with, to the byte, also at a smaller rank."""
    own = {"prompt.rank": 3, "fit.rank": rank, "fit.learning_rate": 0.0, "fit.optimiser": optimiser}
    site = site_of({**settings, **FIXED, **own}, 0, 2)
    rng = np.random.default_rng(0)
    sent = PromptState({n: rng.normal(size=a.shape) for n, a in start(site).items()})
    found, _ = site.train(sent, seed=1, server_round=1, rounds=1, mu=0.01)
    assert found == sent.given_to(found, "float32")


def test_under_a_fresh_basis_each_round_trains_b_of_another_one(settings: Flat) -> None:
    site = site_of({**settings, "fit.learning_rate": 0.1}, 0, 2)  # dip's own rule
    sent = start(site)
    assert {n: a.shape for n, a in sent.items()} == {"ctx": (4, 32)}
    for number in (1, 2, 6, 1):
        found, _ = site.train(sent, seed=1, server_round=number, rounds=8, mu=0.0)
        assert {n: a.shape for n, a in found.items()} == {"ctx.B": (1, 32)}
        moved = site.prompt.arrays()["ctx"] - sent["ctx"]
        basis = columns(4, 1, number - 1)
        np.testing.assert_allclose(moved, basis @ found["ctx.B"], atol=1e-6)
        assert np.abs(moved).max() > 0.01
    again, _ = site.train(sent, seed=1, server_round=1, rounds=8, mu=0.0)
    assert again["ctx.B"].tobytes() == found["ctx.B"].tobytes()  # nothing of earlier rounds is left


@pytest.mark.parametrize("rule", ["", "fresh-basis"])
@pytest.mark.parametrize("method", ["dip", "dip-fixed"])
def test_the_settings_rule_goes_before_the_methods(settings: Flat, method: str, rule: str) -> None:
    site = site_of({**settings, "prompt.method": method, "server.rule": rule}, 0, 2)
    fresh = rule or method == "dip"
    assert set(site.prompt.leaving()) == ({"ctx.B"} if fresh else {"ctx.A", "ctx.B"})


@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
def test_under_a_fresh_basis_a_rate_of_zero_learns_nothing(settings: Flat, optimiser: str) -> None:
    own = {"prompt.rank": 2, "fit.learning_rate": 0.0, "fit.optimiser": optimiser}
    site = site_of({**settings, **own}, 0, 2)
    found, _ = site.train(start(site), seed=1, server_round=1, rounds=1, mu=0.01)
    assert {n: a.shape for n, a in found.items()} == {"ctx.B": (2, 32)}
    assert not found["ctx.B"].any()


def test_under_a_fresh_basis_a_site_without_images_returns_no_update(settings: Flat) -> None:
    uneven = {**settings, "data.partitioner": "dirichlet", "data.alpha": 0.001}
    sites = [site_of(uneven, partition, 8) for partition in range(8)]
    empty = next(site for site in sites if not len(site.train_labels))
    found, _ = empty.train(start(empty), seed=1, server_round=2, rounds=3, mu=0.0)
    assert {n: a.shape for n, a in found.items()} == {"ctx.B": (1, 32)}
    assert not found["ctx.B"].any()


def test_under_a_shared_basis_only_b_leaves(settings: Flat) -> None:
    site = site_of({**settings, "server.rule": "shared-basis", "prompt.rank": 2}, 0, 2)
    before = site.prompt.frozen_arrays()["ctx.A"]
    arrays, _ = site.train(start(site), seed=1, server_round=1, rounds=1, mu=0.0)
    assert {n: a.shape for n, a in arrays.items()} == {"ctx.B": (2, 32)}
    assert np.array_equal(site.prompt.frozen_arrays()["ctx.A"], before)


def test_round_0_scores_as_zero_shot_clip(settings: Flat, clip: FrozenClip) -> None:
    site = site_of(settings, 0, 2)
    score = site.evaluate(start(site))
    vectors = Template(clip, ("cat", "dog"), "a photo of a {}.").class_vectors()
    logits = clip.logit_scale * site.held_images.features @ vectors.T
    assert score.correct == int((logits.argmax(-1) == site.held_labels).sum())
    loss = torch.nn.functional.cross_entropy(logits, site.held_labels)
    assert score.loss == pytest.approx(float(loss), rel=1e-4)


def test_wrong_arrays_are_refused(settings: Flat) -> None:
    for own, wrong in (({}, "ctx.B"), (FIXED, "ctx.A")):
        with pytest.raises(PromptError, match="expected"):
            site_of({**settings, **own}, 0, 2).evaluate(PromptState({wrong: np.zeros((4, 1))}))


def test_features_are_kept_only_where_wanted(settings: Flat, own_cache: Path) -> None:
    site_of({**settings, "fit.cache": False}, 0, 2)
    assert not list(own_cache.rglob("*.sqlite"))
    site_of(settings, 0, 2)
    assert len(list(own_cache.rglob("*.sqlite"))) == 1


@pytest.mark.parametrize("rule", ["", "factors", "shared-basis", "fresh-basis"])
def test_a_rank_of_its_own_needs_the_product_rule(settings: Flat, rule: str) -> None:
    with pytest.raises(ConfigError, match=r"fit\.rank = 1 under server\.rule"):
        site_of(
            {**settings, "prompt.rank": 2, "fit.rank": 1, "server.rule": rule},
            0,
            2,
        )


def test_a_rank_of_its_own_is_no_larger_than_the_servers(settings: Flat) -> None:
    with pytest.raises(ConfigError, match=r"fit\.rank = 3 is more than prompt\.rank = 2"):
        site_of({**settings, **FIXED, "prompt.rank": 2, "fit.rank": 3}, 0, 2)
