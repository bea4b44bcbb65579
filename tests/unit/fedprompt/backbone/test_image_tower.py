import open_clip
import pytest
import torch

from fedprompt.backbone.clip import FrozenClip
from fedprompt.backbone.image_tower import encode_images
from fedprompt.backbone.prompts import ImagePrompts
from fedprompt.errors import BackboneError

IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_without_prompts_it_is_open_clip_bit_for_bit(clip: FrozenClip) -> None:
    assert torch.equal(clip.encode_image(IMAGES), clip.model.encode_image(IMAGES))


def naive(visual: torch.nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """Insert prompts with forward hooks into open_clip's own forward."""
    own = visual.positional_embedding.shape[0]

    def insert(module, inputs):  # before ln_pre
        return (torch.cat([inputs[0], tokens[0].expand(len(inputs[0]), -1, -1)], 1),)

    def overwrite(index):
        def hook(module, inputs):
            rows = inputs[0].clone()
            rows[:, own:] = tokens[index]
            return (rows, *inputs[1:])

        return hook

    blocks = visual.transformer.resblocks
    hooks = [visual.ln_pre.register_forward_pre_hook(insert)]
    hooks += [blocks[i].register_forward_pre_hook(overwrite(i)) for i in range(1, len(tokens))]
    features = visual(IMAGES)
    for hook in hooks:
        hook.remove()
    return features


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_prompts_enter_as_in_a_naive_insertion(clip: FrozenClip, layers: int) -> None:
    tokens = torch.randn(layers, 2, 48)
    found = clip.encode_image(IMAGES, ImagePrompts(tokens=tokens))
    torch.testing.assert_close(found, naive(clip.model.visual, tokens), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(found, clip.encode_image(IMAGES), atol=1e-3)


def test_a_tower_without_tokens_refuses_prompts() -> None:
    model = open_clip.CLIP(
        8,
        {"layers": [1, 1, 1, 1], "width": 8, "image_size": 32},
        {"width": 32, "heads": 4, "layers": 1},
    ).eval()
    with pytest.raises(BackboneError, match="ModifiedResNet takes no prompt tokens"):
        encode_images(model.visual, IMAGES, ImagePrompts(tokens=torch.zeros(1, 1, 8)))
