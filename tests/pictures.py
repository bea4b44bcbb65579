"""Image folders for tests: noise, coloured by class, the same at every call."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def image_folder(root: Path, classes: Sequence[str], images: int, size: int = 36) -> Path:
    """Write ``images`` pictures of each class below ``root``; no two are the same."""
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for number in range(images):
            rng = np.random.default_rng([label, number])
            pixels = rng.integers(0, 120, (size, size + 4, 3), dtype=np.uint8)
            pixels[..., label % 3] += 120
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root
