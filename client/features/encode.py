"""Encode a site's images once: their features, and what enters the first prompted block.

Features are kept in memory and on disk. Activations are large (50 kB an image of the embedded CLIP,
600 kB of ViT-B/16): a site keeps them in memory while they fit; else each batch is decoded and
computed when it is needed.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from client.features.adversarial_features import ENCODERS, key_of
from client.features.feature_store import Features, FeatureStore
from client.features.oom_retry import halved
from fedprompt.backbone.clip import FrozenClip
from fedprompt.backbone.encoded import EncodedImages, Rows
from fedprompt.data.decode import MAX_PIXELS, RULE
from fedprompt.data.image_set import ImageSet
from fedprompt.data.preprocess import Preprocessing, fit_to_input
from fedprompt.identity import canonical_json, sha256_bytes
from fedprompt.prompts.recipe import Bank
from fedprompt.types import Activations, ImageFeatures, Pixels

_WRITTEN_AT_ONCE = 1024  # images between two writes to the store
KEPT_BYTES = 1 << 30  # of one site's activations in memory


def store_key(clip: FrozenClip, bank: Bank = "clean", white_level: int = 0) -> str:
    """Return the hash of everything but the image that a feature depends on."""
    decoding = {"rule": RULE, "white_level": white_level}
    settings = canonical_json(clip.preprocessing.to_dict() | decoding) + key_of(bank)
    return sha256_bytes(f"{clip.fingerprint}{clip.device.type}".encode() + settings)


def encode(
    images: ImageSet,
    clip: FrozenClip,
    store: FeatureStore | None,
    batch: int,
    first_layer: int | None,
    *,
    max_pixels: int = MAX_PIXELS,
    bank: Bank = "clean",
) -> EncodedImages:
    """Return what of some images is computed once, for a prompt that enters at ``first_layer``.

    Parameters are those of `image_features`; with ``first_layer`` None features are all there is,
    as of attacked images.
    """
    features = image_features(images, clip, store, batch, max_pixels=max_pixels, bank=bank)
    if first_layer is None or bank != "clean":
        return EncodedImages(features)
    rows = image_rows(images, clip, first_layer, batch, max_pixels=max_pixels)
    return EncodedImages(features, rows)


def image_features(
    images: ImageSet,
    clip: FrozenClip,
    store: FeatureStore | None,
    batch: int,
    *,
    max_pixels: int = MAX_PIXELS,
    bank: Bank = "clean",
) -> ImageFeatures:
    """Return unit features [images joint], in order; only images the store lacks are encoded.

    Parameters
    ----------
    images
        May be empty.
    clip
        The frozen CLIP; features land on its device.
    store
        Where features of this bank are kept (`store_key`); None encodes every image.
    batch
        Images encoded at a time; halved and tried again when a GPU's memory does not suffice.
    max_pixels
        Of one image, as the data were checked (``data.max_pixels``).
    bank
        What is encoded of an image.
    """
    digests = [images.digest(index) for index in range(len(images))]
    known = store.read(digests) if store else {}
    missing = {digest: index for index, digest in enumerate(digests) if digest not in known}
    todo = list(missing.items())
    for start in range(0, len(todo), _WRITTEN_AT_ONCE):
        part = todo[start : start + _WRITTEN_AT_ONCE]
        vectors = _encode(images, part, clip, batch, max_pixels, bank)
        fresh = {digest: vector for (digest, _), vector in zip(part, vectors, strict=True)}
        known |= fresh
        if store:
            store.write(fresh)
    if not digests:
        return torch.zeros(0, 0, device=clip.device)
    stacked = torch.from_numpy(np.stack([known[digest] for digest in digests]))
    return F.normalize(stacked.to(clip.device), dim=-1)


class ComputedRows:
    """Compute the activations of chosen images when they are asked for.

    Parameters
    ----------
    images
        Decoded each time: memory does not grow with their number.
    clip
        The frozen CLIP.
    layer
        Block of the image tower that the rows enter.
    max_pixels
        Of one image, as the data were checked.
    """

    def __init__(self, images: ImageSet, clip: FrozenClip, layer: int, max_pixels: int) -> None:
        self._images, self._clip, self._layer = images, clip, layer
        self._max_pixels = max_pixels

    @torch.no_grad()
    def __getitem__(self, chosen: Tensor) -> Activations:
        """Return the activations [chosen tokens width] on the backbone's device."""
        clip = self._clip
        pixels = read_pixels(self._images, chosen.tolist(), clip.preprocessing, self._max_pixels)
        return clip.image.activations(clip.normalise(pixels), self._layer)


def image_rows(
    images: ImageSet, clip: FrozenClip, layer: int, batch: int, *, max_pixels: int
) -> Rows:
    """Return the activations of all images, kept if they fit into ``KEPT_BYTES``.

    Parameters
    ----------
    images
        May be empty.
    clip, layer
        Whose block ``layer`` the rows enter.
    batch
        Images computed at a time.
    max_pixels
        Of one image, as the data were checked (``data.max_pixels``).
    """
    computed = ComputedRows(images, clip, layer, max_pixels)
    everything = torch.arange(len(images))
    if not len(images):
        return torch.zeros(0, 1, clip.image.width, device=clip.device)
    first = computed[everything[:1]]
    if first.nbytes * len(images) > KEPT_BYTES:
        return computed
    return torch.cat([computed[part] for part in everything.split(batch)])


def read_pixels(
    images: ImageSet, chosen: Sequence[int], preprocessing: Preprocessing, max_pixels: int
) -> Pixels:
    """Return uint8 [chosen size size 3], decoded and resized; at least one is chosen.

    Raises
    ------
    DataError
        An image cannot be read, or has more than ``max_pixels``.
    """
    decoded = (images.pixels(index, max_pixels) for index in chosen)
    fitted = [fit_to_input(pixels, preprocessing) for pixels in decoded]
    return torch.from_numpy(np.stack(fitted))


def _encode(
    images: ImageSet,
    part: Sequence[tuple[str, int]],
    clip: FrozenClip,
    batch: int,
    max_pixels: int,
    bank: Bank,
) -> Iterator[Features]:
    """Yield one raw feature vector [joint] for each digest and index."""
    for start in range(0, len(part), batch):
        digests, indices = zip(*part[start : start + batch], strict=True)
        pixels = read_pixels(images, indices, clip.preprocessing, max_pixels)
        yield from _encode_pixels(pixels, digests, clip, batch, bank)


def _encode_pixels(
    pixels: Pixels, digests: Sequence[str], clip: FrozenClip, batch: int, bank: Bank
) -> Iterator[Features]:
    # a short batch is filled up: every image passes through the same shapes, so its feature does
    # not depend on how many images its site holds
    def fixed(size: int) -> torch.Tensor:
        parts = []
        for start in range(0, len(pixels), size):
            own = pixels[start : start + size]
            filled = torch.cat([own, own.new_zeros(size - len(own), *own.shape[1:])])
            names = [*digests[start : start + size], *["0"] * (size - len(own))]
            parts.append(ENCODERS[bank](clip, filled, names)[: len(own)])
        return torch.cat(parts)

    yield from halved(fixed, batch).float().cpu().numpy()
