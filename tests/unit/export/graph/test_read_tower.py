from typing import Any

import pytest
from torch import nn

from export.graph.read_tower import is_plain, read_tower


@pytest.mark.parametrize(
    ("vision", "pool"),
    [
        ({}, "token"),
        ({"pool_type": "avg"}, "norm_mean"),
        ({"pool_type": "avg", "final_ln_after_pool": True}, "mean_norm"),
    ],
)
def test_a_plain_tower_is_read(tiny_clip: Any, vision: dict[str, Any], pool: str) -> None:
    visual = tiny_clip(**vision).model.visual
    assert is_plain(visual)
    tower = read_tower(visual)
    assert (tower.size, tower.patch, tower.heads, tower.grid) == (32, 8, 3, 4)
    assert (tower.width, tower.joint, len(tower.blocks), tower.pool) == (48, 24, 2, pool)


@pytest.mark.parametrize(
    "vision",
    [
        {"qk_norm": True},
        {"scale_attn": True},
        {"attentional_pool": True},
        {"image_size": (32, 64)},
    ],
)
def test_any_other_tower_is_left_to_torch(vision: dict[str, Any]) -> None:
    from open_clip.transformer import VisionTransformer

    plain = {"image_size": 32, "patch_size": 8, "width": 48, "layers": 1, "heads": 3}
    visual = VisionTransformer(**plain | {"mlp_ratio": 4.0, "output_dim": 24} | vision)
    assert not is_plain(visual)


def test_an_activation_that_is_not_known_is_left_to_torch(tiny_clip: Any) -> None:
    visual = tiny_clip().model.visual
    visual.transformer.resblocks[1].mlp.gelu = nn.ReLU()
    assert not is_plain(visual)


def test_mixed_activations_are_left_to_torch(tiny_clip: Any) -> None:
    visual = tiny_clip().model.visual
    visual.transformer.resblocks[1].mlp.gelu = nn.GELU(approximate="tanh")
    assert not is_plain(visual)


def test_layer_scale_is_folded_into_the_layer_before(tiny_clip: Any) -> None:
    visual = tiny_clip(ls_init_value=0.3).model.visual
    block, found = visual.transformer.resblocks[0], read_tower(visual).blocks[0]
    gamma = block.ls_2.gamma
    expected = block.mlp.c_proj.weight.T * gamma
    assert abs(found.down.weight - expected.detach().numpy()).max() == 0
    assert abs(found.down.bias - (block.mlp.c_proj.bias * gamma).detach().numpy()).max() == 0
