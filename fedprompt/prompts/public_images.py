"""Read the images that a prompt may start from, because everyone may see them."""

import numpy as np
import torch

from fedprompt.data.decode import decode
from fedprompt.data.preprocess import Preprocessing, fit_to_input
from fedprompt.data.sources import read
from fedprompt.errors import DataError
from fedprompt.settings.data import DataConfig
from fedprompt.types import Pixels


def public_pixels(source: str, most: int, preprocessing: Preprocessing, seed: int) -> Pixels:
    """Return up to ``most`` images of a source's training split, drawn by ``seed``.

    Raises
    ------
    DataError
        The source cannot be read, or has no images.
    """
    split = read(DataConfig(source=source)).train
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(split.labels), generator=generator)[:most].tolist()
    if not chosen:
        raise DataError(f"prompt.public = {source!r} has no images; name a source that has")
    contents = map(split.source.content, chosen)
    return torch.from_numpy(np.stack([fit_to_input(decode(c), preprocessing) for c in contents]))
