from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from export.fold.constants import Constants, VisualPrompts
from export.graph.fuse import flavour_of, fuse
from export.graph.traced_tower import FEATURES, trace_tower
from export.parity.check import reference_logits
from fedprompt.backbone.clip import FrozenClip
from fedprompt.data.preprocess import Preprocessing
from fedprompt.errors import BackboneError, GraphError

Images = npt.NDArray[np.uint8]


def with_tower(clip: FrozenClip, visual: nn.Module) -> FrozenClip:
    clip.model.visual = visual.eval().requires_grad_(False)
    return clip


def timm_tower(name: str) -> nn.Module:
    from open_clip.timm_model import TimmModel

    torch.manual_seed(0)
    return TimmModel(name, embed_dim=24, image_size=32, pool="", proj="linear")


def coca_tower() -> nn.Module:
    torch.manual_seed(0)
    return VisionTransformer(
        image_size=32, patch_size=8, width=48, layers=1, heads=3, mlp_ratio=2.0, output_dim=24,
        attentional_pool=True, attn_pooler_queries=4, attn_pooler_heads=2, output_tokens=True,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["test_vit", "test_efficientnet"])
def test_a_timm_tower_equals_torch_at_any_batch(
    tiny_clip: Any, constants: Constants, images: Images, name: str
) -> None:
    tower = timm_tower(name)
    size = tower.trunk.default_cfg["input_size"][-1]
    clip = with_tower(tiny_clip(image_size=size), tower)
    pictures = np.tile(images, (1, size // 32, size // 32, 1))
    assert flavour_of(clip, "ort") == "portable"
    model = fuse(clip, constants, "ort")
    session = onnxruntime.InferenceSession(model.SerializeToString())
    expected = reference_logits(clip, constants, pictures)
    for batch in (1, 2, 5):
        (logits,) = session.run(["logits"], {"images": pictures[:batch]})
        np.testing.assert_allclose(logits, expected[:batch], atol=1e-4)


def test_a_tower_that_also_returns_tokens_gives_its_features() -> None:
    visual = coca_tower().eval()
    model = trace_tower(visual, Preprocessing(size=32, mean=(0, 0, 0), std=(1, 1, 1)))
    pictures = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (found,) = session.run([FEATURES], {"images": pictures})
    with torch.no_grad():
        expected, _ = visual(torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


def test_nothing_of_this_machine_is_left_in_the_file(tiny_clip: Any) -> None:
    model = trace_tower(coca_tower(), Preprocessing(size=32))
    data = model.SerializeToString()
    for text in (b"site-packages", b"/work/", b".py", b"stack_trace", b"open_clip"):
        assert text not in data
    onnx.checker.check_model(model)


class Unexportable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, images: Tensor) -> Tensor:
        raise RuntimeError("this tower has no graph")


def test_a_tower_that_torch_cannot_export_is_explained() -> None:
    with pytest.raises(GraphError, match="Unexportable"):
        trace_tower(Unexportable(), Preprocessing(size=32))


def test_visual_prompts_enter_a_traced_tower_at_any_batch(
    tiny_clip: Any, constants: Constants, images: Images
) -> None:
    clip = with_tower(tiny_clip(), coca_tower())
    assert flavour_of(clip, "ort") == "portable"
    tokens = np.random.default_rng(0).standard_normal((1, 3, 48)).astype(np.float32)
    visual = VisualPrompts(tokens=tokens)
    folded = Constants(class_vectors=constants.class_vectors, visual=visual)
    session = onnxruntime.InferenceSession(fuse(clip, folded).SerializeToString())
    expected = reference_logits(clip, folded, images)
    assert np.abs(expected - reference_logits(clip, constants, images)).max() > 0.05
    for batch in (1, 2, 5):
        (logits,) = session.run(["logits"], {"images": images[:batch]})
        np.testing.assert_allclose(logits, expected[:batch], atol=1e-4)


def test_visual_prompts_of_a_tower_without_tokens_are_refused(
    tiny_clip: Any, constants: Constants
) -> None:
    clip = with_tower(tiny_clip(image_size=32), timm_tower("test_efficientnet"))
    visual = VisualPrompts(tokens=np.ones((1, 3, 48), np.float32))
    with pytest.raises(BackboneError, match="takes no prompt tokens"):
        fuse(clip, Constants(class_vectors=constants.class_vectors, visual=visual))
