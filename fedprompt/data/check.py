"""Find images that cannot be read and test images that training has seen (F27, F28)."""

import contextlib
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedprompt.data.cache import cache_folder
from fedprompt.data.decode import decode
from fedprompt.data.image_set import ImageSet
from fedprompt.errors import DataError, StorageError
from fedprompt.storage import write_atomic

_DIGEST_BYTES = 32
_MAX_KNOWN = 1_000_000  # digests kept between runs, 32 MB


def unreadable(images: ImageSet, max_pixels: int) -> dict[int, str]:
    """Decode every image once and return the reason for each that cannot be read.

    Digests of images that were read are kept in the cache, so that a restart decodes none of them
    again.
    """
    ledger = cache_folder() / f"readable-{max_pixels}.sha256"
    known = _known(ledger)
    fresh: set[bytes] = set()

    def reason(index: int) -> str | None:
        try:
            content = images.content(index)
            digest = hashlib.sha256(content).digest()
            if digest not in known:
                decode(content, max_pixels=max_pixels)
                fresh.add(digest)
        except DataError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes without the GIL
        reasons = dict(enumerate(pool.map(reason, range(len(images)))))
    if fresh and len(known | fresh) <= _MAX_KNOWN:
        with contextlib.suppress(StorageError):  # only the next start is slower
            write_atomic(ledger, b"".join(sorted(known | fresh)))
    return {index: text for index, text in reasons.items() if text is not None}


def seen_in(train: ImageSet, test: ImageSet) -> dict[int, int]:
    """Return, for each training image whose bytes are also in the test set, the test image."""
    known = {test.digest(index): index for index in range(len(test))}
    found = ((index, known.get(train.digest(index))) for index in range(len(train)))
    return {index: twin for index, twin in found if twin is not None}


def first_copies(images: ImageSet) -> npt.NDArray[np.int64]:
    """Return for each image the first with the same bytes, itself as a rule; int64 [images]."""
    first: dict[str, int] = {}
    numbers = (first.setdefault(images.digest(index), index) for index in range(len(images)))
    return np.fromiter(numbers, dtype=np.int64, count=len(images))


def _known(ledger: Path) -> set[bytes]:
    try:
        content = ledger.read_bytes()
    except OSError:
        return set()
    starts = range(0, len(content) - _DIGEST_BYTES + 1, _DIGEST_BYTES)
    return {content[start : start + _DIGEST_BYTES] for start in starts}
