"""Show what is taken for what: cells for a few classes, one picture for many."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from server.run_folder.report.predictions import Predictions

MOST_CELLS = 24  # classes a side; a wider table cannot be read
_MOST_PAIRS = 12
_BLUE = (0, 114, 178)  # Okabe and Ito's, apart from grey for every kind of sight
_LEAST_SIDE = 512  # pixels of the picture


@dataclass(frozen=True)
class Pair:
    """Hold one mistake: images of one class taken for another."""

    true: str
    predicted: str
    images: int
    share: float  # of the true class's images


def shares(confusion: Sequence[Sequence[int]]) -> list[list[float]]:
    """Return each cell as a share of its row [classes classes]; an empty row gives zeros."""
    counts = np.asarray(confusion, dtype=float)
    rows: list[list[float]] = (counts / counts.sum(axis=1, keepdims=True).clip(min=1)).tolist()
    return rows


def frequent_mistakes(predictions: Predictions) -> list[Pair]:
    """Return the most frequent mistakes, most frequent first."""
    share, names = shares(predictions.confusion), predictions.classes
    pairs = [
        Pair(names[i], names[j], count, share[i][j])
        for i, row in enumerate(predictions.confusion)
        for j, count in enumerate(row)
        if i != j and count
    ]
    return sorted(pairs, key=lambda pair: -pair.images)[:_MOST_PAIRS]


def picture(confusion: Sequence[Sequence[int]]) -> str:
    """Return a PNG as base64: the larger a cell's share of its row, the less transparent."""
    share = np.sqrt(np.asarray(shares(confusion)))  # small shares are the ones to be found
    pixels = np.zeros((*share.shape, 4), np.uint8)
    pixels[..., :3], pixels[..., 3] = _BLUE, np.round(255 * share)
    times = max(1, _LEAST_SIDE // len(share))
    buffer = io.BytesIO()
    Image.fromarray(pixels.repeat(times, 0).repeat(times, 1)).save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()
