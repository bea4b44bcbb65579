import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fedprompt.backbone.clip import FrozenClip
from fedprompt.backbone.prompted_images import PromptedImages
from fedprompt.backbone.prompts import ImagePrompts
from tests.conftest import tiny_clip

IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
PLACES = [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (2, 1)]  # first block, prompted blocks; of three


def features_and_gradient(encode, rows, tokens, first):
    """Return features and the gradient of a cross-entropy over random classes."""
    tokens = tokens.clone().requires_grad_()
    features = encode(rows, ImagePrompts(tokens=tokens, first=first))
    classes = F.normalize(torch.randn(5, 24, generator=torch.Generator().manual_seed(1)), dim=-1)
    logits = 50 * F.normalize(features, dim=-1) @ classes.T.to(features)
    F.cross_entropy(logits, torch.arange(len(features))).backward()
    return features.detach(), tokens.grad


@pytest.mark.parametrize(("first", "layers"), PLACES)
@pytest.mark.parametrize("batch", [1, 3])
def test_features_and_gradients_equal_the_plain_tower(
    clip: FrozenClip, first: int, layers: int, batch: int
) -> None:
    tower = clip.image
    rows = tower.activations(IMAGES[:batch], first)
    tokens = torch.randn(layers, 2, 48, generator=torch.Generator().manual_seed(layers))
    fast, plain = (
        features_and_gradient(encode, rows, tokens, first)
        for encode in (PromptedImages(tower), tower.encode)
    )
    torch.testing.assert_close(fast[0], plain[0], rtol=1e-4, atol=1e-5)
    assert (fast[1] - plain[1]).norm() <= 1e-5 * plain[1].norm()
    for matrix in plain[1]:
        assert matrix.norm() > 0  # every prompted block has a say


@pytest.mark.parametrize(("first", "layers"), PLACES)
def test_double_precision_agrees_to_the_last_digits(first: int, layers: int) -> None:
    """In float64 only a wrong formula could differ by more than 1e-12."""
    tower = tiny_clip().double().image
    rows = tower.activations(IMAGES.double(), first)
    tokens = torch.randn(layers, 2, 48, dtype=torch.float64)
    fast, plain = (
        features_and_gradient(encode, rows, tokens, first)
        for encode in (PromptedImages(tower), tower.encode)
    )
    torch.testing.assert_close(fast, plain, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_activations_are_what_enters_a_block(clip: FrozenClip, layer: int) -> None:
    seen = []
    block = clip.model.visual.transformer.resblocks[layer]
    hook = block.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    clip.encode_image(IMAGES)
    hook.remove()
    torch.testing.assert_close(clip.image.activations(IMAGES, layer), seen[0])


def test_a_tower_that_averages_its_patches_takes_the_plain_path() -> None:
    clip = tiny_clip()
    assert isinstance(clip.prompted_images, PromptedImages)
    other = tiny_clip()
    other.model.visual.pool_type = "avg"
    assert not PromptedImages.fits(other.image)
    assert other.prompted_images == other.image.encode


def test_layer_scale_is_applied() -> None:
    clip = tiny_clip(seed=3)
    generator = torch.Generator().manual_seed(2)
    for block in clip.model.visual.transformer.resblocks:
        for name in ("ls_1", "ls_2"):
            scale = nn.Module()
            scale.gamma = torch.randn(48, generator=generator)
            scale.forward = lambda rows, gamma=scale.gamma: rows * gamma
            setattr(block, name, scale)
    tokens, rows = torch.randn(2, 2, 48, generator=generator), clip.image.activations(IMAGES, 0)
    prompts = ImagePrompts(tokens=tokens)
    found, expected = PromptedImages(clip.image)(rows, prompts), clip.image.encode(rows, prompts)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
