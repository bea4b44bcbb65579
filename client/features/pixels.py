"""Read images as the pixels that a tower takes."""

from collections.abc import Sequence

import numpy as np
import torch

from fedprompt.data.image_set import ImageSet
from fedprompt.data.preprocess import Preprocessing, fit_to_input
from fedprompt.types import Pixels


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
