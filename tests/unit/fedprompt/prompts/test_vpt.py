import pytest
import torch
from torch.nn import functional as F

from fedprompt.backbone.clip import FrozenClip
from fedprompt.backbone.encoded import EncodedImages
from fedprompt.errors import PromptError
from tests.unit.fedprompt.prompts import naive
from tests.unit.fedprompt.prompts.hosts import (
    EXACT,
    IMAGES,
    NAMES,
    TEMPLATE,
    check_gradients,
    encoded,
    make,
    moved,
)


def zero_shot(clip: FrozenClip) -> torch.Tensor:
    texts = [TEMPLATE.replace("{}", name) for name in NAMES]
    return F.normalize(clip.model.encode_text(clip.tokenizer(texts)), dim=-1)


def matrices(prompt) -> list[torch.Tensor]:
    """Return each block's prompt by its equation: P, or P0 + A B."""
    arrays = dict(prompt.host.named_parameters()) | dict(prompt.host.named_buffers())
    found = []
    for i in range(len(prompt.host.visual)):
        if f"visual.{i}.matrix" in arrays:
            found.append(arrays[f"visual.{i}.matrix"])
        else:
            product = arrays[f"visual.{i}.A"] @ arrays[f"visual.{i}.B"]
            found.append(arrays[f"visual.{i}.start"] + product)
    return found


@pytest.mark.parametrize("form", ["full", "lowrank"])
@pytest.mark.parametrize(("depth", "first"), [(1, 0), (0, 0), (2, 0), (0, 1), (1, 2)])
def test_logits_and_gradients_equal_a_naive_insertion(
    clip64: FrozenClip, form: str, depth: int, first: int
) -> None:
    prompt = moved(clip64, method="vpt", form=form, depth=depth, first_layer=first, tokens=2)
    images = encoded(clip64, prompt)

    def plain() -> torch.Tensor:
        features = naive.image_features(clip64, IMAGES.double(), matrices(prompt), first)
        return clip64.logit_scale * features @ zero_shot(clip64).T

    check_gradients(prompt, images, plain)
    folded = prompt.fold()
    found = clip64.encode_image(IMAGES.double(), folded.visual)
    expected = naive.image_features(clip64, IMAGES.double(), matrices(prompt), first)
    torch.testing.assert_close(F.normalize(found, dim=-1), expected, rtol=EXACT, atol=EXACT)
    torch.testing.assert_close(folded.class_vectors, zero_shot(clip64), rtol=EXACT, atol=EXACT)


def test_a_shallow_prompt_is_of_the_first_block(clip: FrozenClip) -> None:
    shallow = make(clip, method="vpt", depth=1, tokens=7, form="lowrank", rank=2)
    shapes = {n: a.shape for n, a in shallow.arrays().items()}
    assert shapes == {"visual.0.A": (7, 2), "visual.0.B": (2, 48)}


def test_all_images_are_scored_in_order(clip: FrozenClip, monkeypatch) -> None:
    prompt = moved(clip, method="vpt")
    batch = encoded(clip, prompt)
    images = EncodedImages(batch.features, batch.rows)
    whole = prompt.predict(images)
    monkeypatch.setattr("fedprompt.prompts.prompted.AT_ONCE", 4)
    torch.testing.assert_close(prompt.predict(images), whole)
    with torch.no_grad():
        torch.testing.assert_close(whole, prompt(batch).logits)


def test_half_the_images_at_a_time_change_nothing_but_rounding(clip: FrozenClip) -> None:
    prompt = moved(clip, method="vpt")
    images = encoded(clip, prompt)

    def gradients() -> list[torch.Tensor]:
        prompt.zero_grad()
        prompt.backward(images, torch.zeros(6, dtype=torch.int64), None)
        return [p.grad.clone() for p in prompt.parameters()]

    whole = gradients()
    assert [prompt.halve_chunk() for _ in range(3)] == [True, True, False]  # 6, 3, 1
    for found, expected in zip(gradients(), whole, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_features_alone_are_refused(clip: FrozenClip) -> None:
    prompt = make(clip, method="vpt")
    images = EncodedImages(torch.zeros(2, 24))
    with pytest.raises(PromptError, match="needs the images' activations"):
        prompt.predict(images)


@pytest.mark.parametrize("first", [3, 20])
def test_a_first_block_behind_the_last_is_refused(clip: FrozenClip, first: int) -> None:
    told = rf"prompt.first_layer = {first} leaves no block .* its last block is 2"
    with pytest.raises(PromptError, match=told):
        make(clip, method="vpt", first_layer=first)
