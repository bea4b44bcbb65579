from typing import get_args

import numpy as np
import pytest
import torch

from fedprompt.backbone.clip import FrozenClip
from fedprompt.errors import PromptError
from fedprompt.identity import sha256_arrays
from fedprompt.prompts.build import METHODS, build_prompt
from fedprompt.prompts.config import PromptConfig
from fedprompt.prompts.coop import Coop
from fedprompt.prompts.forms import Full, LowRank
from fedprompt.prompts.template import Template
from tests.conftest import CLASSES


def build(clip: FrozenClip, shared_basis: bool = False, **config):
    return build_prompt(
        PromptConfig(**config), clip, CLASSES, "a photo of a {}.", shared_basis=shared_basis
    )


def test_every_method_of_the_configuration_is_built(clip: FrozenClip) -> None:
    assert set(METHODS) == set(get_args(PromptConfig.model_fields["method"].annotation))
    kinds = {name: type(build(clip, method=name)) for name in METHODS}
    assert kinds == {"dip": Coop, "coop": Coop, "template": Template}
    assert isinstance(build(clip).ctx, LowRank)
    assert isinstance(build(clip, method="coop").ctx, Full)


@pytest.mark.parametrize(
    "config",
    [{}, {"init": "random", "tokens": 4}, {"method": "coop", "init": "random", "tokens": 4}],
)
def test_the_seed_alone_decides_the_start(clip: FrozenClip, config: dict) -> None:
    def digest(seed: int, torch_seed: int = 0) -> str:
        torch.manual_seed(torch_seed)
        prompt = build(clip, seed=seed, **config)
        return sha256_arrays(prompt.arrays() | prompt.frozen_arrays())

    assert digest(1) == digest(1, torch_seed=5)
    assert digest(1) != digest(2)


def test_a_shared_basis_is_the_seeds_own_a(clip: FrozenClip) -> None:
    frozen = build(clip, shared_basis=True, rank=2).frozen_arrays()["ctx.A"]
    assert np.array_equal(frozen, build(clip, rank=2).arrays()["ctx.A"])


def test_rank_above_length_is_refused(clip: FrozenClip) -> None:
    with pytest.raises(PromptError, match=r"prompt.rank = 5 is above prompt.tokens = 4"):
        build(clip, rank=5)


def test_building_and_training_leave_the_backbone_alone(clip: FrozenClip) -> None:
    prompt = build(clip)
    assert all(parameter.requires_grad for parameter in prompt.parameters())
    assert not any(parameter.requires_grad for parameter in clip.parameters())
    own = {id(parameter) for parameter in clip.parameters()}
    assert own.isdisjoint(id(parameter) for parameter in prompt.parameters())
