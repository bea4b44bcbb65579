from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
import torch
from torch.nn.functional import conv2d

from export.fold.constants import Constants, VisualPrompts
from export.graph.fuse import fuse
from export.graph.image_tower import fold_normalisation
from export.parity.check import reference_logits
from export.precision import Flavour
from fedprompt.backbone.clip import FrozenClip
from fedprompt.data.preprocess import Preprocessing
from fedprompt.errors import GraphError


def test_normalisation_folds_into_the_kernel() -> None:
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal((6, 3, 4, 4)).astype(np.float32)
    pixels = rng.integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    pre = Preprocessing(size=4)
    mean, std = (torch.tensor(v, dtype=torch.float64) for v in (pre.mean, pre.std))
    normal = ((torch.from_numpy(pixels) / 255.0 - mean) / std).permute(0, 3, 1, 2)
    expected = conv2d(normal, torch.from_numpy(kernel).double())[:, :, 0, 0]
    weight, offset = fold_normalisation(kernel, pre)
    found = pixels.reshape(2, -1) @ weight + offset
    # weights are rounded to float32 once more: 2^-24 of sums of 48 terms of size 4
    np.testing.assert_allclose(found, expected.numpy(), atol=5e-6)


Images = npt.NDArray[np.uint8]
Exact = npt.NDArray[np.float64]
DOMAINS, WIDTH, HEADS = 3, 48, 3


@pytest.fixture(scope="module")
def mixed() -> Constants:
    rng = np.random.default_rng(0)
    mixture = rng.standard_normal((DOMAINS, 5, 24))
    mixture /= np.linalg.norm(mixture, axis=-1, keepdims=True)
    tokens = 3 * rng.standard_normal((1, DOMAINS, WIDTH))  # long: domains that differ
    return Constants(
        class_vectors=mixture[0].astype(np.float32),
        mixture=mixture.astype(np.float32),
        visual=VisualPrompts(tokens=tokens.astype(np.float32)),
    )


def weights(clip: FrozenClip, constants: Constants, images: Images) -> Exact:
    """Return ADAPT's weights in numpy, head by head, from the rows that enter the last block."""
    rows: list[torch.Tensor] = []
    last = clip.model.visual.transformer.resblocks[-1]
    hook = last.ln_1.register_forward_hook(lambda *a: rows.append(a[2]))
    with torch.no_grad():
        prompts = constants.prompts(clip.device)
        clip.encode_image(clip.normalise(torch.from_numpy(images)), prompts)
    hook.remove()
    packed = [
        p.detach().double().numpy() for p in (last.attn.in_proj_weight, last.attn.in_proj_bias)
    ]
    found, each = np.zeros((len(images), DOMAINS)), WIDTH // HEADS
    for image, normed in enumerate(rows[0].double().numpy()):
        for head in range(HEADS):
            part = slice(head * each, (head + 1) * each)
            query, keys = (packed[0][p : p + WIDTH][part] for p in (0, WIDTH))
            bias, keys_bias = (packed[1][p : p + WIDTH][part] for p in (0, WIDTH))
            asked = query @ normed[0] + bias
            scores = [asked @ (keys @ n + keys_bias) for n in normed[-DOMAINS:]]
            powers = np.exp(np.array(scores) / np.sqrt(each))
            found[image] += powers / powers.sum() / HEADS
    return found


@pytest.mark.parametrize("flavour", ["ort", "portable"])
@pytest.mark.parametrize("tower", [{}, {"pool_type": "avg"}, {"layers": 3}], ids=str)
def test_domains_are_mixed_as_the_equation_says(
    tiny_clip: Any, mixed: Constants, images: Images, tower: dict[str, Any], flavour: Flavour
) -> None:
    clip = tiny_clip(**tower)
    assert mixed.mixture is not None
    shares = weights(clip, mixed, images)
    assert np.ptp(shares) > 0.1
    with torch.no_grad():
        pixels = clip.normalise(torch.from_numpy(images))
        z = clip.encode_image(pixels, mixed.prompts(clip.device)).double().numpy()
    vectors = np.einsum("bd,dcj->bcj", shares, mixed.mixture)
    cosines = np.einsum("bj,bcj->bc", z, vectors) / np.linalg.norm(vectors, axis=-1)
    expected = clip.logit_scale * cosines / np.linalg.norm(z, axis=-1, keepdims=True)
    np.testing.assert_allclose(reference_logits(clip, mixed, images), expected, atol=3e-5)
    session = onnxruntime.InferenceSession(fuse(clip, mixed, flavour).SerializeToString())
    for batch in (1, 2, 5):
        (logits,) = session.run(["logits"], {"images": images[:batch]})
        np.testing.assert_allclose(logits, expected[:batch], atol=3e-5)


def test_a_tower_of_one_block_cannot_mix(tiny_clip: Any, mixed: Constants) -> None:
    with pytest.raises(GraphError, match="one block only"):
        fuse(tiny_clip(layers=1), mixed)


def test_a_traced_tower_cannot_mix(tiny_clip: Any, mixed: Constants) -> None:
    clip = tiny_clip()
    clip.model.visual.transformer.resblocks[1].mlp.gelu = torch.nn.ReLU()
    with pytest.raises(GraphError, match="plain VisionTransformers only"):
        fuse(clip, mixed)
