"""What enters the first prompted block of the image tower: kept in memory, or computed anew.

Activations are large (50 kB an image of the embedded CLIP, 600 kB of ViT-B/16): a site keeps them
while they fit, else each batch is decoded and computed when it is needed.
"""

import torch
from torch import Tensor

from client.features.pixels import read_pixels
from fedprompt.backbone.clip import FrozenClip
from fedprompt.backbone.encoded import Rows
from fedprompt.data.image_set import ImageSet
from fedprompt.types import Activations

KEPT_BYTES = 1 << 30  # of one site's activations in memory


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
