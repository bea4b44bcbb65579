"""Encode a site's images once (design.md, speed-up 1)."""

from collections.abc import Iterator

import numpy as np
import torch
from torch.nn import functional as F

from client.feature_store import Features, FeatureStore
from fedprompt.backbone.clip import FrozenClip
from fedprompt.data.decode import MAX_PIXELS, decode
from fedprompt.data.image_set import ImageSet
from fedprompt.data.preprocess import fit_to_input
from fedprompt.errors import BackboneError
from fedprompt.identity import canonical_json, sha256_bytes
from fedprompt.types import ImageFeatures

_KEPT = 1024  # images between two writes to the store


def store_key(clip: FrozenClip) -> str:
    """Return the hash of everything but the image that a feature depends on."""
    settings = canonical_json(clip.preprocessing.to_dict())
    return sha256_bytes(f"{clip.fingerprint}{clip.device.type}".encode() + settings)


def image_features(
    images: ImageSet,
    clip: FrozenClip,
    store: FeatureStore | None,
    batch: int,
    *,
    max_pixels: int = MAX_PIXELS,
) -> ImageFeatures:
    """Return unit features [images joint], in order; only images the store lacks are encoded.

    Parameters
    ----------
    images
        May be empty.
    clip
        The frozen CLIP; features land on its device.
    store
        Where features are kept; None encodes every image.
    batch
        Images encoded at a time; halved and tried again when a GPU's memory does not suffice.
    max_pixels
        Of one image, as the data were checked (``data.max_pixels``).
    """
    digests = [images.digest(index) for index in range(len(images))]
    known = store.read(digests) if store else {}
    missing = {digest: index for index, digest in enumerate(digests) if digest not in known}
    todo = list(missing.items())
    for start in range(0, len(todo), _KEPT):
        part = todo[start : start + _KEPT]
        vectors = _encode(images, [index for _, index in part], clip, batch, max_pixels)
        fresh = {digest: vector for (digest, _), vector in zip(part, vectors, strict=True)}
        known |= fresh
        if store:
            store.write(fresh)
    if not digests:
        return torch.zeros(0, 0, device=clip.device)
    stacked = torch.from_numpy(np.stack([known[digest] for digest in digests]))
    return F.normalize(stacked.to(clip.device), dim=-1)


def _encode(
    images: ImageSet, indices: list[int], clip: FrozenClip, batch: int, max_pixels: int
) -> Iterator[Features]:
    """Yield one raw feature vector [joint] for each index."""
    for start in range(0, len(indices), batch):
        pixels = np.stack(
            [
                fit_to_input(decode(content, max_pixels=max_pixels), clip.preprocessing)
                for content in map(images.content, indices[start : start + batch])
            ]
        )
        yield from _encode_pixels(torch.from_numpy(pixels), clip, batch)


@torch.no_grad()
def _encode_pixels(pixels: torch.Tensor, clip: FrozenClip, batch: int) -> Iterator[Features]:
    # a short batch is filled up: every image passes through the same shapes, so its feature does
    # not depend on how many images its site holds
    size = batch
    while True:
        try:
            parts = [_fixed(part, clip, size) for part in pixels.split(size)]
            break
        except torch.OutOfMemoryError as error:
            if size == 1:
                raise BackboneError(
                    "the GPU's memory does not hold one image's activations; choose a smaller "
                    "backbone, free the GPU, or set backbone.device = cpu"
                ) from error
            size //= 2
    yield from torch.cat(parts).float().cpu().numpy()


def _fixed(pixels: torch.Tensor, clip: FrozenClip, size: int) -> torch.Tensor:
    filled = torch.cat([pixels, pixels.new_zeros(size - len(pixels), *pixels.shape[1:])])
    return clip.encode_image(clip.normalise(filled))[: len(pixels)]
