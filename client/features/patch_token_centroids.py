"""Noised centres of a site's patch tokens: what a self-prompt may start from (SPT).

In each layer k-means takes n centres of the tokens of some of the site's training images; each is
cut to 1.5 times the layer's usual norm and gets Gaussian noise in every number. No epsilon is
claimed: a centre is a mean of many tokens, but nothing bounds what one image moves it. The usual
norm is CLIP's own, measured on coloured blocks that every machine draws: it tells nothing of the
site. All of it is ours; the paper starts from raw tokens.
"""

import hashlib

import numpy as np
import numpy.typing as npt
import torch

from client.features.encode import read_pixels
from fedprompt.backbone.clip import FrozenClip
from fedprompt.backbone.patch_tokens import patch_tokens
from fedprompt.clusters import LARGEST, centres, cut
from fedprompt.data.image_set import ImageSet
from fedprompt.identity import canonical_json, sha256_arrays
from fedprompt.types import Pixels

_BLOCKS, _PICTURES = 8, 8  # coloured blocks along a side, and images of them

Vectors = npt.NDArray[np.float32]  # [layers length vision_width]


def noised_centres(
    images: ImageSet,
    clip: FrozenClip,
    layers: range,
    length: int,
    *,
    most: int,
    noise: float,
    seed: int,
    secret: bytes,
    max_pixels: int,
) -> Vectors:
    """Return the centres of each layer's tokens, cut and noised.

    Parameters
    ----------
    images
        At least one; ``most`` of them are used, drawn by ``seed``.
    clip, layers
        Whose blocks the tokens enter.
    length
        Centres in a layer.
    noise
        Standard deviation, over the usual norm of the layer's tokens.
    seed
        Of the choice of images and of k-means.
    secret
        Seeds the noise together with the centres: the same question is answered by the same noise,
        so that asking again does not average it out; another secret gives other noise.
    max_pixels
        Of one image, as the data were checked.
    """
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(images), generator=generator)[:most].tolist()
    pixels = read_pixels(images, chosen, clip.preprocessing, max_pixels)
    tokens = (layer.flatten(0, 1) for layer in patch_tokens(clip, pixels, layers))
    found = [centres(t.numpy(), np.ones(len(t)), length, seed) for t in tokens]
    norms = usual_norms(clip, layers)
    short = [cut(points, LARGEST * norm) for points, norm in zip(found, norms, strict=True)]
    told = np.stack(short).astype(np.float16)  # so few digits are the same on every machine
    drawn = _generator(secret, told, noise).normal(size=told.shape)
    noised: Vectors = (told + noise * norms[:, None, None] * drawn).astype(np.float32)
    return noised


def usual_norms(clip: FrozenClip, layers: range) -> npt.NDArray[np.float64]:
    """Return the median norm [layers] of CLIP's tokens of images of random coloured blocks."""
    tokens = patch_tokens(clip, _coloured(clip.preprocessing.size), layers)
    return np.array([float(t.norm(dim=-1).median().half()) for t in tokens])


def _coloured(size: int) -> Pixels:
    generator = torch.Generator().manual_seed(0)
    shape = (_PICTURES, _BLOCKS, _BLOCKS, 3)
    blocks = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    places = torch.arange(size) * _BLOCKS // size
    return blocks[:, places][:, :, places]


def _generator(secret: bytes, points: npt.NDArray[np.float16], noise: float) -> np.random.Generator:
    question = canonical_json([sha256_arrays({"": points}), noise])
    digest = hashlib.sha256(secret + question).digest()
    return np.random.default_rng(np.frombuffer(digest, np.uint32))
