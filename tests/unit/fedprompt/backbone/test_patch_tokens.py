import numpy as np
import pytest
import torch

from fedprompt.backbone.clip import FrozenClip
from fedprompt.backbone.patch_tokens import patch_tokens

PIXELS = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (19, 32, 32, 3), np.uint8))


def by_hand(clip: FrozenClip, layer: int) -> torch.Tensor:
    """Return the patch tokens [images patches width] that enter a block, by hooks on open_clip."""
    visual = clip.model.visual
    seen: list[torch.Tensor] = []
    if layer == 0:
        hook = visual.conv1.register_forward_hook(lambda _m, _i, out: seen.append(out))
    else:
        block = visual.transformer.resblocks[layer - 1]
        hook = block.register_forward_hook(lambda _m, _i, out: seen.append(out[:, 1:]))
    visual(clip.normalise(PIXELS))
    hook.remove()
    return seen[0].flatten(2).transpose(1, 2) if layer == 0 else seen[0]


@pytest.mark.parametrize("layers", [range(3), range(1), range(1, 3), range(2, 3)])
def test_tokens_are_what_the_tower_makes(clip: FrozenClip, layers: range) -> None:
    found = list(patch_tokens(clip, PIXELS, layers))
    assert len(found) == len(layers)
    for layer, tokens in zip(layers, found, strict=True):
        assert (tokens.shape, tokens.dtype) == ((19, 16, 48), torch.float64)
        torch.testing.assert_close(tokens.float(), by_hand(clip, layer), rtol=1e-3, atol=1e-4)


def test_the_tower_itself_stays_as_it_is(clip: FrozenClip) -> None:
    before = {name: tensor.clone() for name, tensor in clip.model.state_dict().items()}
    list(patch_tokens(clip, PIXELS[:2], range(3)))
    after = clip.model.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert len(clip.model.visual.transformer.resblocks) == 3


def test_threads_change_less_than_what_is_rounded_off(clip: FrozenClip) -> None:
    threads = torch.get_num_threads()
    found = []
    for number in (1, 2):
        torch.set_num_threads(number)
        found.append(torch.stack(list(patch_tokens(clip, PIXELS, range(3)))))
    torch.set_num_threads(threads)
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-11)
