from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch

from fedprompt.backbone.clip import FrozenClip
from fedprompt.errors import ConfigError, PromptError
from fedprompt.identity import sha256_arrays
from fedprompt.prompt_state import PromptState
from fedprompt.prompts.build import build_prompt, is_tied, recipe_of
from fedprompt.prompts.forms import Full, LowRank
from fedprompt.prompts.methods import METHODS, UNTRAINED, own_rule, prompt_config
from fedprompt.prompts.objectives import OBJECTIVES
from fedprompt.prompts.objectives.cross_entropy import by_cross_entropy
from fedprompt.prompts.recipe import Recipe
from fedprompt.prompts.template import Template
from fedprompt.settings.prompt import PromptedConfig
from fedprompt.settings.run_config import RunConfig, defaults
from server.merge.rules import RULES
from tests.conftest import CLASSES

HOSTED = sorted(name for name in METHODS if isinstance(recipe_of(name), Recipe))
HEADED = sorted(METHODS.keys() - set(HOSTED))


def build(clip: FrozenClip, rule: str = "product", **config):
    domains = {"domains": "ink, clay"} if config.get("method") == "adapt" else {}
    return build_prompt(
        prompt_config(**domains, **config),
        clip,
        CLASSES,
        "a photo of a {}.",
        rule=rule,
        any_start=True,  # no images are at hand here
    )


def test_every_method_of_the_configuration_is_built(clip: FrozenClip) -> None:
    for name in HOSTED:
        made = recipe_of(name).host  # a class, or a function that returns one
        expected = made if isinstance(made, type) else get_type_hints(made)["return"]
        assert isinstance(build(clip, method=name).host, expected)
    for name in HEADED:
        assert isinstance(build(clip, method=name).head, recipe_of(name).head)
    for name in UNTRAINED:
        prompt = build(clip, method=name)
        assert isinstance(prompt, Template)
        assert prompt.describe()["method"] == name
    assert isinstance(build(clip).host.ctx, LowRank)
    assert isinstance(build(clip, method="coop").host.ctx, Full)


@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.parametrize("form", ["full", "lowrank"])
def test_every_matrix_of_every_method_takes_either_form(
    clip: FrozenClip, method: str, form: str
) -> None:
    prompt = build(clip, method=method, form=form)
    kind = LowRank if form == "lowrank" else Full
    owner = prompt.host if method in HOSTED else prompt.head
    assert all(isinstance(matrix, kind) for matrix in owner.matrices())
    assert prompt.describe()["form"] == form


@pytest.mark.parametrize(
    "config",
    [{"init": "random", "tokens": 4}, {"method": "coop", "init": "random", "tokens": 4}],
)
def test_the_seed_alone_decides_the_start(clip: FrozenClip, config: dict) -> None:
    def digest(seed: int, torch_seed: int = 0) -> str:
        torch.manual_seed(torch_seed)
        prompt = build(clip, seed=seed, **config)
        return sha256_arrays(prompt.arrays() | prompt.frozen_arrays())

    assert digest(1) == digest(1, torch_seed=5)
    assert digest(1) != digest(2)


@pytest.mark.parametrize("options", [{}, {"rule": "shared-basis"}, {"rule": "fresh-basis"}])
def test_from_words_no_seed_decides_anything(clip: FrozenClip, options: dict) -> None:
    """A is the same columns for everybody: no seed draws better ones than another."""
    one, two = (build(clip, rank=2, seed=seed, **options) for seed in (1, 2))
    for arrays in (one.arrays(), one.frozen_arrays(), one.leaving()):
        assert all(np.isfinite(array).all() for array in arrays.values())
    assert sha256_arrays(one.arrays() | one.frozen_arrays()) == sha256_arrays(
        two.arrays() | two.frozen_arrays()
    )


def test_a_fresh_basis_holds_the_prompt_and_sends_b_alone(clip: FrozenClip) -> None:
    prompt = build(clip, rule="fresh-basis", rank=2)
    assert {n: a.shape for n, a in prompt.arrays().items()} == {"ctx": (4, 32)}
    assert {n: a.shape for n, a in prompt.leaving().items()} == {"ctx.B": (2, 32)}
    assert not prompt.frozen_arrays()
    assert np.array_equal(prompt.arrays()["ctx"], build(clip, method="coop").arrays()["ctx"])
    assert prompt.describe()["form"] == "full"  # what an artefact holds of it


def test_of_a_fresh_basis_the_arrays_are_the_whole_prompt(clip: FrozenClip) -> None:
    prompt = build(clip, rule="fresh-basis")
    start = prompt.arrays()["ctx"]
    with torch.no_grad():
        prompt.host.ctx.B.fill_(2.0)
    moved = prompt.arrays()["ctx"]
    np.testing.assert_allclose(moved - start, np.outer([1, -1, 1, -1], np.ones(32)), atol=1e-6)
    prompt.load_arrays(PromptState({"ctx": moved}))
    assert np.array_equal(prompt.arrays()["ctx"], moved)  # not with B once more
    assert not prompt.leaving()["ctx.B"].any()


@pytest.mark.parametrize("method", sorted(METHODS))
def test_the_rule_is_the_methods_own_unless_the_settings_say_otherwise(method: str) -> None:
    own = "fresh-basis" if method == "dip" else "product"
    settings = {"prompt.method": method}
    assert RunConfig.parse(settings).server.rule == own
    assert RunConfig.parse(settings | {"server.rule": ""}).server.rule == own
    for rule in RULES:
        assert RunConfig.parse(settings | {"server.rule": rule}).server.rule == rule


def test_the_default_is_dip_on_a_fresh_basis() -> None:
    assert RunConfig.parse({}).server.rule == "fresh-basis"
    assert RunConfig.parse({}) == RunConfig.parse(defaults())
    assert {own_rule(method) for method in UNTRAINED} == {"product"}


def test_rank_above_length_is_refused(clip: FrozenClip) -> None:
    with pytest.raises(PromptError, match=r"prompt.rank = 5 is too high for a matrix of 4 rows"):
        build(clip, rank=5)


def test_building_and_training_leave_the_backbone_alone(clip: FrozenClip) -> None:
    prompt = build(clip)
    assert all(parameter.requires_grad for parameter in prompt.parameters())
    assert not any(parameter.requires_grad for parameter in clip.parameters())
    own = {id(parameter) for parameter in clip.parameters()}
    assert own.isdisjoint(id(parameter) for parameter in prompt.parameters())


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_names_its_paper(method: str) -> None:
    assert METHODS[method].source


def test_the_objective_is_the_methods_own_unless_the_settings_say_otherwise(
    clip: FrozenClip,
) -> None:
    assert build(clip, method="kgcoop").objective is OBJECTIVES["kgcoop"]
    assert build(clip, method="adapt").objective is OBJECTIVES["alignment"]
    assert build(clip, method="adapt", objective="cross-entropy").objective is by_cross_entropy
    named = get_args(PromptedConfig.model_fields["objective"].annotation)
    assert set(named) == {"", *OBJECTIVES}


def test_a_head_is_trained_by_cross_entropy(clip: FrozenClip) -> None:
    with pytest.raises(ConfigError, match=r"prompt\.objective = 'prograd' .* linear takes none"):
        build(clip, method="linear", objective="prograd")


PLACED = {"dip", "dip-fixed", "coop", "kgcoop", "prograd", "advpt"}  # the methods of CoOp's host


@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.parametrize("own", [{"name_position": "front"}, {"class_specific": True}])
def test_what_cannot_place_its_vectors_says_so(clip: FrozenClip, method: str, own: dict) -> None:
    if method in PLACED:
        assert build(clip, method=method, **own).describe() == (
            build(clip, method=method).describe() | own
        )
        return
    told = rf"of dip, dip-fixed, coop, kgcoop, prograd, advpt; prompt\.method = {method} takes none"
    with pytest.raises(ConfigError, match=told):
        build(clip, method=method, **own)


def test_class_specific_vectors_are_tied_to_their_classes() -> None:
    tied = {method for method in (*METHODS, *UNTRAINED) if is_tied(prompt_config(method=method))}
    assert tied == {"linear"}
    assert is_tied(prompt_config(method="coop", class_specific=True))
