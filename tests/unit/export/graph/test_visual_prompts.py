from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import torch

from export.fold.constants import Constants, VisualPrompts
from export.graph.fuse import fuse
from export.graph.read_tower import read_tower
from export.graph.visual_prompts import entering, keys_and_values
from export.parity.check import reference_logits
from export.precision import Flavour
from fedprompt.backbone.clip import FrozenClip
from fedprompt.errors import GraphError

Images = npt.NDArray[np.uint8]
BLOCKS, LENGTH, WIDTH = 4, 3, 48


def prompts(first: int, depth: int, seed: int = 0) -> VisualPrompts:
    drawn = np.random.default_rng(seed).standard_normal((depth, LENGTH, WIDTH))
    return VisualPrompts(tokens=drawn.astype(np.float32), first=first)


@pytest.fixture(scope="module")
def clip(tiny_clip: Any) -> FrozenClip:
    clip: FrozenClip = tiny_clip(layers=BLOCKS)
    return clip


def check_parity(
    clip: FrozenClip, constants: Constants, images: Images, flavour: Flavour
) -> onnx.ModelProto:
    """Compare with the plain tower, and see to it that the prompts matter."""
    model = fuse(clip, constants, flavour)
    expected = reference_logits(clip, constants, images)
    alone = reference_logits(clip, Constants(class_vectors=constants.class_vectors), images)
    assert np.abs(expected - alone).max() > 0.05
    session = onnxruntime.InferenceSession(model.SerializeToString())
    for batch in (1, 2, 5):
        (logits,) = session.run(["logits"], {"images": images[:batch]})
        # float32 sums in another order; logits are up to 14
        np.testing.assert_allclose(logits, expected[:batch], atol=3e-5)
    return model


@pytest.mark.parametrize("flavour", ["ort", "portable"])
@pytest.mark.parametrize(
    ("first", "depth"),
    [(0, 1), (0, 2), (0, BLOCKS), (1, 1), (1, 2), (1, 3), (2, 1), (3, 1)],
)
def test_prompts_in_any_blocks_equal_the_plain_tower(
    clip: FrozenClip, constants: Constants, images: Images, first: int, depth: int, flavour: Flavour
) -> None:
    folded = Constants(class_vectors=constants.class_vectors, visual=prompts(first, depth))
    check_parity(clip, folded, images, flavour)


@pytest.mark.parametrize("flavour", ["ort", "portable"])
@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize(
    "tower",
    [
        {"quick_gelu": True},
        {"no_ln_pre": True},
        {"pool_type": "avg"},
        {"pool_type": "avg", "final_ln_after_pool": True},
        {"ls_init_value": 0.3},
    ],
    ids=str,
)
def test_prompts_in_other_towers_equal_the_plain_tower(
    tiny_clip: Any,
    constants: Constants,
    images: Images,
    tower: dict[str, Any],
    depth: int,
    flavour: Flavour,
) -> None:
    """Of two blocks the first is prompted, so that guests stay, or both."""
    folded = Constants(class_vectors=constants.class_vectors, visual=prompts(0, depth))
    check_parity(tiny_clip(**tower), folded, images, flavour)


def test_what_a_block_reads_of_guests_is_torch_s(clip: FrozenClip) -> None:
    block = clip.model.visual.transformer.resblocks[1]
    tokens = prompts(1, 1).tokens[0]
    with torch.no_grad():
        rows = block.ln_1(torch.from_numpy(tokens))
        packed = rows @ block.attn.in_proj_weight.T
    found = keys_and_values(read_tower(clip.model.visual).blocks[1], tokens)
    np.testing.assert_allclose(found, packed[:, WIDTH:].numpy(), atol=1e-5)


def test_block_0_is_entered_through_ln_pre_and_no_other(clip: FrozenClip) -> None:
    visual = prompts(0, 2)
    found = entering(visual, read_tower(clip.model.visual))
    with torch.no_grad():
        normed = clip.model.visual.ln_pre(torch.from_numpy(visual.tokens[0]))
    np.testing.assert_allclose(found[0], normed.numpy(), atol=1e-5)
    np.testing.assert_array_equal(found[1], visual.tokens[1])
    assert sorted(found) == [0, 1]


@pytest.mark.parametrize("flavour", ["ort", "portable"])
def test_prompts_cost_few_operators_few_bytes_and_no_shapes(
    clip: FrozenClip, constants: Constants, images: Images, flavour: Flavour
) -> None:
    plain = fuse(clip, constants, flavour)
    deep = Constants(class_vectors=constants.class_vectors, visual=prompts(0, BLOCKS))
    model = fuse(clip, deep, flavour)
    kinds = [node.op_type for node in model.graph.node]
    assert not set(kinds) & {"Shape", "Expand", "Gather", "Max"}
    # a zero for the batch takes 2, each block's guests up to 7 (Attention comes apart)
    assert len(kinds) <= len(plain.graph.node) + 2 + 7 * BLOCKS
    # keys and values of the guests: not a row more
    own = 4 * BLOCKS * LENGTH * 2 * WIDTH
    names = 320 * (len(kinds) - len(plain.graph.node))
    assert len(model.SerializeToString()) <= len(plain.SerializeToString()) + own + names


@pytest.mark.parametrize(
    ("tokens", "first"),
    [(np.ones((2, 3, 48)), 3), (np.ones((5, 3, 48)), 0), (np.ones((1, 3, 32)), 0)],
)
def test_prompts_of_another_tower_are_refused(
    clip: FrozenClip, constants: Constants, tokens: npt.NDArray[np.float64], first: int
) -> None:
    visual = VisualPrompts(tokens=tokens.astype(np.float32), first=first)
    with pytest.raises(GraphError, match="different models"):
        fuse(clip, Constants(class_vectors=constants.class_vectors, visual=visual))
