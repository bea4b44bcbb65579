import numpy as np
import pytest
import torch

from fedprompt.data import load
from fedprompt.errors import ConfigError, DataError, PromptError
from fedprompt.prompt_state import PromptState
from fedprompt.prompts.artefacts import from_artefact
from fedprompt.settings.data import DataConfig
from fedprompt.settings.run_config import RunConfig, defaults
from fedprompt.wire import SHARED
from server.rounds import task_builder as module
from server.rounds.task_builder import FREE, Tuning
from tests.pictures import image_folder

FIXED = {"prompt.method": "dip-fixed"}


def tuning_of(settings):
    """Return what a server tunes under flat settings."""
    return Tuning(RunConfig.parse(settings))


@pytest.fixture(autouse=True)
def loaded(clip, monkeypatch, tmp_path):
    monkeypatch.setenv("FEDPROMPT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "shared_backbone", lambda config: clip)
    load.inspect.cache_clear()


@pytest.fixture
def settings(tmp_path):
    photos = image_folder(tmp_path / "photos", ("cat", "dog"), 4)
    return defaults() | {"data.source": str(photos), "data.clients": 4}


def test_a_task_is_the_prompts_start_and_identity(settings, clip):
    tuning = tuning_of(settings)
    task = tuning.task()
    assert {name: array.shape for name, array in task.arrays.items()} == {"ctx": (4, 32)}
    assert {name: array.shape for name, array in task.reply.items()} == {"ctx.B": (1, 32)}
    words = tuning_of(settings | {"prompt.method": "coop"}).task().arrays["ctx"]
    assert np.array_equal(task.arrays["ctx"], words)  # the start is the words', not a drawn one
    assert set(task.identity) == set(SHARED)
    assert task.identity["backbone"] == clip.fingerprint
    assert task.identity["classes"] == '["cat","dog"]'


def test_the_published_dip_is_two_factors_both_ways(settings):
    task = tuning_of(settings | FIXED).task()
    assert {name: array.shape for name, array in task.arrays.items()} == {
        "ctx.A": (4, 1),
        "ctx.B": (1, 32),
    }
    assert not task.arrays["ctx.B"].any()
    assert not task.reply  # as it came


@pytest.mark.parametrize(
    ("chosen", "told"),
    [
        (
            {"fit.rank": 1},
            r"fit\.rank = 1 under server\.rule = fresh-basis.*server\.rule = product",
        ),
        (
            {**FIXED, "fit.rank": 3, "prompt.rank": 2},
            r"fit\.rank = 3 is more than prompt\.rank = 2",
        ),
        ({"fit.rank": 1, "server.rule": "factors"}, r"fit\.rank = 1 under server\.rule = factors"),
        ({"fit.rank": 1, "server.rule": "shared-basis"}, "sites of unequal rank"),
        ({"fit.rank": 1, "server.rule": "fresh-basis"}, "sites of unequal rank"),
    ],
)
def test_a_rank_that_no_site_can_train_at_is_refused_before_a_site_starts(settings, chosen, told):
    with pytest.raises(ConfigError, match=told):
        tuning_of(settings | chosen)


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_a_rank_up_to_the_prompts_is_a_sites_own_choice(settings, rank):
    tuning_of(settings | FIXED | {"fit.rank": rank, "prompt.rank": 2})


@pytest.mark.parametrize("method", ["dip", "dip-fixed", "coop"])
def test_an_empty_rule_and_the_methods_own_are_one_run(settings, method):
    """So a run is resumed by either, and its folder says by which rule it was merged."""
    chosen = settings | {"prompt.method": method}
    own = {"dip": "fresh-basis"}.get(method, "product")
    found = [
        tuning_of(chosen),
        tuning_of(chosen | {"server.rule": own}),
    ]
    assert {tuning.server.rule for tuning in found} == {own}
    assert found[0].config == found[1].config
    assert found[0].task().run == found[1].task().run
    assert tuning_of(chosen | {"server.rule": "shared-basis"}).task().run != found[0].task().run


def test_sites_to_wait_for(settings):
    assert tuning_of(settings).sites == 4
    assert tuning_of(settings | {"server.min_sites": 2}).sites == 2


def test_a_run_is_known_by_what_touches_its_prompt(settings):
    run = tuning_of(settings).task().run
    changed = {"server.output": "x", "server.workers": 3, "fit.cache": False}
    assert set(changed) <= FREE
    assert tuning_of(settings | changed).task().run == run
    for other in ({"prompt.seed": 1}, {"fit.epochs": 2}, {"server.rounds": 11}):
        assert tuning_of(settings | other).task().run != run


@pytest.mark.parametrize(
    "protection",
    [
        {
            "server.secure_aggregation": True,
            "server.weighting": "uniform",
            "server.clip_norm": 1.0,
        },
        {"privacy.noise_multiplier": 1.0},
    ],
)
def test_what_no_site_sends_cannot_be_protected(settings, protection):
    with pytest.raises(ConfigError, match=r"under prompt\.personal = local.*nothing to protect"):
        tuning_of(settings | protection | {"prompt.personal": "local"})
    assert tuning_of(settings | protection | {"prompt.personal": "both"}).task().arrays


def test_free_settings_exist(settings):
    assert set(defaults()) >= FREE


def test_it_describes_a_prompt_by_its_density_and_the_rank_of_its_change(settings):
    tuning = tuning_of(settings | {"server.rule": "fresh-basis"})
    start = tuning.task().arrays["ctx"]
    told = tuning.describe(PromptState({"ctx": start}))
    assert 0 < told.information_density <= 1
    assert told.change_rank == 0
    for rank in (1, 2, 4):
        change = np.random.default_rng(rank).normal(size=(4, rank, 1)) * np.ones((1, 1, 32))
        change = np.einsum("lrw,rw->lw", change, np.random.default_rng(0).normal(size=(rank, 32)))
        moved = PromptState({"ctx": start + change})
        assert tuning.describe(moved).change_rank == rank


@pytest.mark.parametrize("rule", ["product", "shared-basis", "fresh-basis"])
def test_the_artefact_holds_the_merged_prompt(settings, clip, rule):
    tuning = tuning_of(settings | {"server.rule": rule})
    rng = np.random.default_rng(0)
    arrays = tuning.task().arrays
    merged = PromptState({name: rng.normal(size=a.shape) for name, a in arrays.items()})
    artefact = tuning.artefact(merged, 3, 0.25)
    assert artefact.metadata["round"] == 3
    assert artefact.metadata["aggregation"] == {"rule": rule, "truncation_error": 0.25}
    prompt = from_artefact(artefact, clip)
    assert all(np.array_equal(prompt.arrays()[name], merged[name]) for name in merged)
    tuning.prompt.load_arrays(merged)
    torch.testing.assert_close(prompt.class_vectors(), tuning.prompt.class_vectors())


def test_a_fresh_basis_sends_the_prompt_and_is_returned_b(settings):
    chosen = {"prompt.method": "coop", "prompt.form": "lowrank", "server.rule": "fresh-basis"}
    task = tuning_of(settings | chosen).task()
    assert set(task.arrays) == {"ctx"}
    assert {n: a.shape for n, a in task.reply.items()} == {"ctx.B": (1, 32)}


def test_a_shared_basis_sends_b_alone(settings):
    assert set(tuning_of(settings | {"server.rule": "shared-basis"}).task().arrays) == {"ctx.B"}


def test_nothing_to_train_is_refused(settings):
    with pytest.raises(ConfigError, match="trains nothing; choose dip or coop"):
        tuning_of(settings | {"prompt.method": "template"})


def test_a_rank_above_the_length_is_refused(settings):
    with pytest.raises(PromptError, match="rank"):
        tuning_of(settings | {"prompt.rank": 5})


def test_a_server_without_images_tunes_for_the_base_classes_of_its_list():
    config = DataConfig(class_names="cat,dog,owl,yak,emu", subsample_classes="base")
    assert module._classes(config) == ("cat", "dog", "owl")


def test_a_simulations_partition_says_how_many_images_a_site_has(settings):
    images = tuning_of(settings | {"data.partitioner": "linear", "data.clients": 2}).task().images
    assert sorted(images) == [0, 1]
    assert sum(images.values()) == len(
        load.inspect(DataConfig(source=settings["data.source"])).train
    )
    assert images[0] != images[1]


def test_what_was_agreed_in_a_deployment_is_in_its_list(settings, tmp_path):
    assert tuning_of(settings | {"server.sites": str(tmp_path / "sites.json")}).task().images == {}


def test_images_that_cannot_be_divided_are_told_before_a_site_is_asked(settings):
    with pytest.raises(DataError, match="cannot divide 6 images among 10 sites"):
        tuning_of(settings | {"data.clients": 10})
    names = {"data.source": "/nowhere", "data.class_names": "cat,dog"}
    assert tuning_of(settings | names).images == {}  # a server without images
