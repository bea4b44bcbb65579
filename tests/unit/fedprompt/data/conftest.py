"""Small real image files, and a cache of the test's own."""

import io
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedprompt.data import load

Encode = Callable[..., bytes]
MakeFolder = Callable[[Path, Mapping[str, int]], Path]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("FEDPROMPT_CACHE", str(cache))
    load.inspect.cache_clear()
    load._parts.cache_clear()
    return cache


@pytest.fixture
def encode() -> Encode:
    """Return the bytes of a file of a Pillow image, or of noise made from a seed."""

    def to_bytes(image: Image.Image | int, kind: str = "PNG", **options: object) -> bytes:
        if isinstance(image, int):
            noise = np.random.default_rng(image).integers(0, 256, (8, 9, 3), dtype=np.uint8)
            image = Image.fromarray(noise)
        file = io.BytesIO()
        image.save(file, kind, **options)
        return file.getvalue()

    return to_bytes


@pytest.fixture
def make_folder(encode: Encode) -> MakeFolder:
    """Write some images a class, all different, into class folders."""
    seeds = iter(range(1, 100_000))

    def make(root: Path, counts: Mapping[str, int]) -> Path:
        for name, count in counts.items():
            (root / name).mkdir(parents=True)
            for number in range(count):
                (root / name / f"{number}.png").write_bytes(encode(next(seeds)))
        return root

    return make
