import pytest
import torch

from fedprompt.backbone.clip import FrozenClip
from fedprompt.backbone.encoded import Encoded, EncodedImages
from fedprompt.errors import PromptError
from tests.unit.fedprompt.prompts.hosts import IMAGES, LABELS, encoded, moved
from tests.unit.fedprompt.prompts.naive import image_features
from tests.unit.fedprompt.prompts.objectives.plain import frozen, matrices


def test_the_frozen_clip_is_no_part_of_it(clip: FrozenClip) -> None:
    prompt = moved(clip, method="vpt")
    own = {tensor.data_ptr() for tensor in prompt.state_dict().values()}
    assert not own & {tensor.data_ptr() for tensor in clip.model.state_dict().values()}
    assert sum(p.numel() for p in prompt.parameters()) == sum(
        array.size for array in prompt.arrays().values()
    )


def test_a_tower_without_prompts_stays_as_it_is(clip: FrozenClip) -> None:
    features, vectors = frozen(clip)
    text, visual = moved(clip, method="coop"), moved(clip, method="vpt")
    images = encoded(clip, text)
    assert text(images).features is images.features
    torch.testing.assert_close(visual.class_vectors(), vectors, rtol=1e-6, atol=1e-6)
    assert (visual(encoded(clip, visual)).features - features).abs().max() > 1e-3


def test_more_images_than_are_scored_at_once_are_scored_all(clip: FrozenClip) -> None:
    prompt = moved(clip, method="vpt")
    _, vectors = frozen(clip)
    with torch.no_grad():
        side = matrices(prompt, "visual")
        expected = clip.logit_scale * image_features(clip, IMAGES, side) @ vectors.T
    which = torch.arange(260) % len(IMAGES)
    kept = encoded(clip, prompt)
    found = prompt.predict(EncodedImages(kept.features[which], kept.rows[which]))
    torch.testing.assert_close(found, expected[which], rtol=1e-4, atol=1e-4)


def test_no_images_have_no_logits(clip: FrozenClip) -> None:
    prompt = moved(clip, method="vpt")
    kept = encoded(clip, prompt)
    assert tuple(prompt.predict(EncodedImages(kept.features[:0], kept.rows[:0])).shape) == (0, 5)


@pytest.mark.parametrize(("method", "times"), [("coop", 2), ("vpt", 2), ("ivlp", 2)])
def test_half_as_much_at_a_time_gives_the_same_gradients(
    clip: FrozenClip, method: str, times: int
) -> None:
    """Five classes and six images: 2 and 3 at a time, then 1 and 1, then no less."""
    prompt = moved(clip, method=method)
    images = encoded(clip, prompt)

    def gradients() -> list[torch.Tensor]:
        prompt.zero_grad()
        prompt.backward(images, LABELS, None)
        return [parameter.grad.clone() for parameter in prompt.parameters()]

    expected = gradients()
    for _ in range(times):
        assert prompt.halve_chunk()
        for found, wanted in zip(gradients(), expected, strict=True):
            assert (found - wanted).norm() <= 1e-4 * wanted.norm() + 1e-7
    assert not prompt.halve_chunk()


def test_features_alone_do_not_do_for_a_prompted_image_tower(clip: FrozenClip) -> None:
    prompt = moved(clip, method="vpt")
    with pytest.raises(PromptError, match="needs the images' activations, found features only"):
        prompt(Encoded(encoded(clip, prompt).features))
