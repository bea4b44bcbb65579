import pytest
import torch

from fedprompt.backbone.clip import FrozenClip
from tests.unit.fedprompt.prompts import naive
from tests.unit.fedprompt.prompts.hosts import (
    EXACT,
    IMAGES,
    NAMES,
    check_gradients,
    encoded,
    moved,
)


def matrices(prompt, side: str) -> list[torch.Tensor]:
    arrays = dict(prompt.host.named_parameters()) | dict(prompt.host.named_buffers())
    count = len(getattr(prompt.host, side))
    if f"{side}.0.matrix" in arrays:
        return [arrays[f"{side}.{i}.matrix"] for i in range(count)]
    return [
        arrays[f"{side}.{i}.start"] + arrays[f"{side}.{i}.A"] @ arrays[f"{side}.{i}.B"]
        for i in range(count)
    ]


@pytest.mark.parametrize("form", ["full", "lowrank"])
@pytest.mark.parametrize("depth", [1, 2, 0])
def test_logits_and_gradients_equal_a_naive_insertion(
    clip64: FrozenClip, form: str, depth: int
) -> None:
    prompt = moved(clip64, method="ivlp", form=form, depth=depth)

    def plain() -> torch.Tensor:
        features = naive.image_features(clip64, IMAGES.double(), matrices(prompt, "visual"))
        vectors = naive.class_vectors(clip64, NAMES, ".", matrices(prompt, "text"))
        return clip64.logit_scale * features @ vectors.T

    check_gradients(prompt, encoded(clip64, prompt), plain)
    folded = prompt.fold()
    vectors = naive.class_vectors(clip64, NAMES, ".", matrices(prompt, "text"))
    torch.testing.assert_close(folded.class_vectors, vectors, rtol=EXACT, atol=EXACT)
