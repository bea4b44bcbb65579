import pytest
import torch

from fedprompt.backbone.clip import FrozenClip
from fedprompt.backbone.encoded import EncodedImages
from fedprompt.errors import PromptError
from fedprompt.prompts import cocoop
from fedprompt.prompts.headed import HeadedClip
from tests.unit.fedprompt.prompts import naive
from tests.unit.fedprompt.prompts.heads import (
    check_gradients,
    images,
    make,
    matrix,
    moved,
)
from tests.unit.fedprompt.prompts.hosts import EXACT, LABELS, NAMES


@pytest.fixture(autouse=True)
def _wider(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the tiny CLIP's meta-net six hidden numbers, not one."""
    monkeypatch.setattr(cocoop, "REDUCTION", 4)


def plain(clip: FrozenClip, prompt: HeadedClip, features: torch.Tensor) -> torch.Tensor:
    """Return logits by the equation, one image after the other, all tokens of all classes."""
    own, rows = prompt.head, []
    for z in features:
        hidden = (matrix(prompt, "narrow") @ z + own.narrow_bias).clamp(min=0)
        shift = matrix(prompt, "widen") @ hidden + own.widen_bias
        context = torch.stack([v + shift for v in matrix(prompt, "ctx")])
        vectors = naive.class_vectors(clip, NAMES, ".", [context])
        rows.append(clip.logit_scale * vectors @ z)
    return torch.stack(rows)


@pytest.mark.parametrize("form", ["full", "lowrank"])
def test_logits_and_gradients_are_those_of_the_equation(clip64: FrozenClip, form: str) -> None:
    prompt, batch = moved(clip64, method="cocoop", form=form), images(clip64)
    expected = plain(clip64, prompt, batch.features)
    check_gradients(prompt, batch, expected)
    found = prompt.predict(EncodedImages(batch.features))
    torch.testing.assert_close(found, expected.detach(), rtol=EXACT, atol=EXACT)


def test_an_images_logits_depend_on_no_other_image(clip: FrozenClip) -> None:
    prompt, features = moved(clip, method="cocoop"), images(clip).features
    together = prompt.predict(EncodedImages(features))
    alone = [prompt.predict(EncodedImages(features[i : i + 1])) for i in range(len(features))]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)
    assert prompt.predict(EncodedImages(features[:0])).shape == (0, len(NAMES))


def test_half_the_classes_at_a_time_change_nothing_but_rounding(clip: FrozenClip) -> None:
    """Chunks of classes are computed again inside an image that is computed again."""
    prompt, batch = moved(clip, method="cocoop"), images(clip)

    def gradients() -> list[torch.Tensor]:
        prompt.zero_grad()
        prompt.backward(batch, LABELS, None)
        return [p.grad.clone() for p in prompt.parameters()]

    whole = gradients()
    assert prompt.halve_chunk()
    for found, expected in zip(gradients(), whole, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


def test_memory_for_the_backward_pass_does_not_grow_with_classes(clip: FrozenClip) -> None:
    """What autograd keeps of an image is its context and the small net's numbers."""
    prompt, batch = moved(clip, method="cocoop"), images(clip)
    kept: list[int] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        prompt(batch)
    assert max(kept) <= 4 * 32 * 6  # contexts of the batch; one class's rows alone are more


def test_it_does_not_fold(clip: FrozenClip) -> None:
    with pytest.raises(PromptError, match=r"does not fold into constants.*use coop or dip"):
        make(clip, method="cocoop").fold()
