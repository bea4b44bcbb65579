"""A site with a prompt of its own: rounds that are skipped, tried again or asked for anew."""

from pathlib import Path

import numpy as np
import pytest
import torch

from client import site as module
from client.site import Site, deployed, simulated
from client.tuning.personal_checkpoints import LocalState
from fedprompt.backbone.clip import FrozenClip
from fedprompt.basis import columns
from fedprompt.data import load
from fedprompt.errors import PromptError
from fedprompt.identity import sha256_arrays
from fedprompt.prompt_state import PromptState
from fedprompt.prompts.mixed import Mixed
from fedprompt.settings.run_config import RunConfig
from fedprompt.settings.section import Flat
from tests.pictures import image_folder

FIXED = {"prompt.method": "dip-fixed"}  # A and B are trained and sent


def site_of(settings, number, sites):
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
        "fit.learning_rate": 0.1,
        "prompt.dropout": 0.5,
        "prompt.personal": "both",
    }


def tune(
    site: Site, server_round: int, sent: PromptState | None = None, **changes: object
) -> PromptState:
    asked = {"seed": 1, "rounds": 4, "mu": 0.0, "run": "abc", **changes}
    return site.train(sent or start(site), server_round=server_round, **asked)[0]


def start(site: Site) -> PromptState:
    rng = np.random.default_rng(0)
    arrays = site.prompt.arrays()
    return PromptState({n: rng.normal(scale=0.02, size=a.shape) for n, a in arrays.items()})


def kept(cache: Path, site: Site) -> list[tuple[str, bytes]]:
    folder = LocalState(cache / "local", "abc", site.number).folder
    return [(path.name, path.read_bytes()) for path in sorted(folder.glob("*"))]


def digests(*arrays: PromptState) -> list[str]:
    return [sha256_arrays(found) for found in arrays]


def test_a_site_tunes_both_prompts_and_only_one_may_leave(settings: Flat, own_cache: Path) -> None:
    site = site_of({**settings, **FIXED}, 0, 2)
    found = tune(site, 1)
    assert {n: a.shape for n, a in found.items()} == {"ctx.A": (4, 1), "ctx.B": (1, 32)}
    ((name, _),) = kept(own_cache, site)
    assert name.startswith("round-00001-")
    own = LocalState(own_cache / "local", "abc", 0).before(2)
    assert own["ctx.B"].any()
    assert found["ctx.B"].any()
    assert not np.array_equal(own["ctx.A"], found["ctx.A"])


def test_on_a_fresh_basis_the_own_prompt_is_kept_whole_and_the_shared_update_leaves(
    settings: Flat, own_cache: Path
) -> None:
    site = site_of(settings, 0, 2)
    found = tune(site, 1)
    assert {n: a.shape for n, a in found.items()} == {"ctx.B": (1, 32)}
    assert found["ctx.B"].any()
    own = LocalState(own_cache / "local", "abc", 0).before(2)
    assert {n: a.shape for n, a in own.items()} == {"ctx": (4, 32)}
    moved = own["ctx"] - site._personal._start["ctx"]
    assert np.abs(moved).max() > 0
    assert not np.allclose(moved, columns(4, 1, 0) @ found["ctx.B"])  # it moved on its own way


def test_the_own_prompt_goes_on_where_it_stopped(settings: Flat) -> None:
    site = site_of(settings, 0, 2)
    tune(site, 1)
    second = tune(site, 2)
    fresh = site_of(settings, 0, 2)
    assert digests(tune(fresh, 2, run="another")) != digests(second)


def test_another_process_of_the_site_finds_it(settings: Flat, own_cache: Path) -> None:
    """A Ray worker, or a restarted one: nothing in memory is needed."""
    site = site_of(settings, 0, 2)
    tune(site, 1)
    second, files = tune(site, 2), kept(own_cache, site)
    tune(site_of(settings, 0, 2), 1)
    assert digests(tune(site_of(settings, 0, 2), 2)) == digests(second)
    assert kept(own_cache, site) == files


def test_a_round_tried_again_starts_from_the_same_state(settings: Flat, own_cache: Path) -> None:
    site = site_of(settings, 0, 2)
    tune(site, 1)
    first, files = tune(site, 2), kept(own_cache, site)
    assert digests(tune(site, 2)) == digests(first)
    assert kept(own_cache, site) == files


def test_a_resumed_server_may_ask_for_rounds_that_were_done(
    settings: Flat, own_cache: Path
) -> None:
    site = site_of(settings, 0, 2)
    story = [tune(site, number) for number in (1, 2, 3)]
    files = kept(own_cache, site)
    assert digests(*(tune(site, number) for number in (2, 3))) == digests(*story[1:])
    assert kept(own_cache, site) == files


def test_a_run_that_begins_again_finds_nothing_of_its_predecessor(settings: Flat) -> None:
    """Also where the site is not asked for its first rounds."""
    site = site_of(settings, 0, 2)
    site.evaluate(start(site), 0, "abc")
    first = tune(site, 3)
    for number in (1, 2):
        tune(site, number)
    site.evaluate(start(site), 0, "abc")
    assert digests(tune(site, 3)) == digests(first)


def test_a_site_that_is_not_asked_every_round_goes_on(settings: Flat) -> None:
    site = site_of(settings, 0, 2)
    tune(site, 1)
    skipped = tune(site, 3)
    every = [tune(site, number, run="second") for number in (1, 2, 3)][-1]
    none = tune(site, 3, run="third")
    assert len(set(digests(skipped, every, none))) == 3


def test_evaluation_is_of_the_sites_own_mixture_after_that_round(settings: Flat) -> None:
    site = site_of(settings, 0, 2)
    sent = start(site)
    before = site.evaluate(sent, 0, "abc")
    for number in (1, 2):
        tune(site, number)
    own = LocalState(site._personal._folder, "abc", 0).before(2)
    site.prompt.load_arrays(PromptState(sent))
    site._personal._own.load_arrays(PromptState(own))
    mixed = Mixed(site.prompt, site._personal._own, 0.5)
    logits = mixed.predict(site.held_images)
    score = site.evaluate(sent, 1, "abc")
    expected = torch.nn.functional.cross_entropy(logits, site.held_labels)
    assert score.loss == pytest.approx(float(expected), rel=1e-5)
    assert len({before.loss, score.loss, site.evaluate(sent, 2, "abc").loss}) == 3


def test_without_the_switch_nothing_is_kept(settings: Flat, own_cache: Path) -> None:
    site = site_of({**settings, "prompt.personal": "global"}, 0, 2)
    tune(site, 1)
    site.evaluate(start(site), 1, "abc")
    assert not (own_cache / "local").exists()


def test_a_local_site_ignores_what_is_sent_and_returns_nothing(
    settings: Flat, own_cache: Path
) -> None:
    settings["prompt.personal"] = "local"
    site = site_of(settings, 0, 2)
    sent = start(site)
    assert not tune(site, 1, sent)
    files = kept(own_cache, site)
    assert len(files) == 1
    other = PromptState({name: array + 1 for name, array in sent.items()})
    assert not tune(site, 1, other)
    assert kept(own_cache, site) == files
    one, two = (site.evaluate(arrays, 1, "abc").loss for arrays in (sent, other))
    assert one == two != site.evaluate(sent, 0, "abc").loss


def test_sites_start_from_unlike_random_numbers(settings: Flat) -> None:
    settings |= {"prompt.method": "coop", "prompt.init": "random", "prompt.tokens": 4}
    starts = [site_of(settings, number, 2)._personal._start for number in (0, 1)]
    assert not np.array_equal(starts[0]["ctx"], starts[1]["ctx"])


@pytest.mark.parametrize("method", ["dip", "dip-fixed"])
def test_fedprox_ties_the_shared_prompt_alone(settings: Flat, method: str) -> None:
    """So heavy a term keeps the shared prompt where it came from, and lets the own one move."""
    settings |= {"prompt.method": method}
    settings |= {"fit.optimiser": "sgd", "fit.learning_rate": 1e-4, "fit.momentum": 0.0}
    settings |= {"prompt.dropout": 0.0, "fit.epochs": 8}
    site = site_of(settings, 0, 2)
    sent = start(site)

    def moved(mu: float) -> tuple[float, float]:
        found = tune(site, 1, sent, mu=mu)
        own = LocalState(site._personal._folder, "abc", 0).before(2)
        first = site._personal._start
        return tuple(
            sum(float(np.abs(new[n] - old.get(n, 0)).sum()) for n in new)  # dip's B is from zero
            for new, old in ((found, sent), (own, first))
        )

    (free, free_own), (tied, tied_own) = moved(0.0), moved(1e4)
    assert tied < free / 2
    assert tied_own > 0.9 * free_own


def test_the_site_may_have_a_smaller_rank(settings: Flat) -> None:
    site = site_of({**settings, **FIXED, "prompt.rank": 3, "fit.rank": 1}, 0, 2)
    found = tune(site, 1)
    assert found["ctx.A"].shape == (4, 1)
    assert site.evaluate(start(site), 1, "abc").count == len(site.held_labels)


def test_a_deployed_site_keeps_it_in_its_folder(settings: Flat, tmp_path: Path) -> None:
    site = deployed(RunConfig.parse(settings), 7, tmp_path / "local")
    tune(site, 1)
    (file,) = (tmp_path / "local").rglob("*.safetensors")
    assert file.parent.name == "site-00007"


def test_a_prompt_that_trains_nothing_cannot_be_personal(settings: Flat) -> None:
    with pytest.raises(PromptError, match=r"prompt\.personal = both needs a prompt to tune"):
        site_of({**settings, "prompt.method": "template"}, 0, 2)


def test_sites_that_mix_otherwise_do_not_share_an_identity(settings: Flat) -> None:
    digest = {
        site_of({**settings, key: value}, 0, 2).digest
        for key, value in (
            ("prompt.personal", "both"),
            ("prompt.personal", "local"),
            ("prompt.personal", "global"),
            ("prompt.local_share", 0.3),
        )
    }
    assert len(digest) == 4
