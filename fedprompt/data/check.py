"""Find images that cannot be read and test images that training has seen (F27, F28)."""

import contextlib
import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedprompt.data.cache import cache_folder
from fedprompt.data.classes import listed
from fedprompt.data.decode import MAX_WHITE, Doubt, decode_and_judge
from fedprompt.data.image_set import ImageSet, Indices
from fedprompt.errors import DataError, StorageError
from fedprompt.storage import write_atomic

_DIGEST_BYTES = 32
_PIECE = 64  # images a thread takes at once
_MAX_KNOWN = 1_000_000  # digests kept between runs, 32 MB
MAX_LEAKED_SHARE = 0.05  # of the training images: more is a mistake, such as one folder twice


@dataclass(frozen=True, eq=False)
class Examined:
    """Hold what reading every image of a set once has shown.

    Attributes
    ----------
    digests
        SHA-256 of each image's bytes; None when it cannot be read.
    reasons
        Why an image cannot be read, by its place in the set.
    doubts
        Places of the images that may be meant in another way, by what is doubtful.
    """

    digests: tuple[bytes | None, ...]
    reasons: dict[int, str]
    doubts: Mapping[Doubt, Sequence[int]] = field(default_factory=dict)


def examine(images: ImageSet, max_pixels: int, *, verified: bool = False) -> Examined:
    """Read every image once, and decode it unless its bytes were decoded before.

    Digests of decoded images are kept in the cache, so that a restart decodes none of them again,
    but for doubtful ones, which are told of at every start.
    ``verified`` bytes were compared with a pinned hash and are not decoded at all.
    """
    ledger = cache_folder() / f"readable-{max_pixels}-{images.white_level}.sha256"
    known = set() if verified else _known(ledger)
    fresh: set[bytes] = set()
    doubts: dict[int, tuple[Doubt, ...]] = {}

    def look(index: int) -> bytes | str:
        """Return the digest, or the reason why there is none."""
        try:
            content = images.content(index)
            digest = hashlib.sha256(content).digest()
            if not verified and digest not in known:
                found = decode_and_judge(
                    content, max_pixels=max_pixels, white_level=images.white_level
                )
                if found.doubts:
                    doubts[index] = found.doubts
                else:
                    fresh.add(digest)
        except DataError as error:
            return str(error)
        return digest

    def look_at_all(indices: range) -> list[bytes | str]:
        return [look(index) for index in indices]

    pieces = [range(i, min(i + _PIECE, len(images))) for i in range(0, len(images), _PIECE)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes without the GIL
        found = [answer for piece in pool.map(look_at_all, pieces) for answer in piece]
    if fresh and len(known | fresh) <= _MAX_KNOWN:
        with contextlib.suppress(StorageError):  # only the next start is slower
            write_atomic(ledger, b"".join(sorted(known | fresh)))
    digests = tuple(answer if isinstance(answer, bytes) else None for answer in found)
    reasons = {i: text for i, text in enumerate(found) if isinstance(text, str)}
    by_doubt: dict[Doubt, list[int]] = {}
    for index in sorted(doubts):
        for doubt in doubts[index]:
            by_doubt.setdefault(doubt, []).append(index)
    return Examined(digests, reasons, by_doubt)


def seen_in(train: Sequence[bytes | None], test: Sequence[bytes | None]) -> dict[int, int]:
    """Return, for each training digest that the test set has too, the test image."""
    known = {digest: index for index, digest in enumerate(test) if digest is not None}
    return {
        index: known[digest]
        for index, digest in enumerate(train)
        if digest is not None and digest in known
    }


def first_copies(digests: Sequence[bytes | None]) -> npt.NDArray[np.int64]:
    """Return for each digest the first that equals it, itself as a rule; int64 [images]."""
    first: dict[bytes | None, int] = {}
    numbers = (first.setdefault(digest, index) for index, digest in enumerate(digests))
    return np.fromiter(numbers, dtype=np.int64, count=len(digests))


def separate(
    train: ImageSet, test: ImageSet, twins: dict[int, int], rule: str, notes: list[str]
) -> list[int]:
    """Return the training images to keep, and note those that are also in the test split.

    Raises
    ------
    DataError
        ``rule`` is refuse, or it is drop and they are too many for an accident.
    """
    everything = list(range(len(train)))
    if not twins:
        return everything
    pairs = [f"{train.name(mine)} = {test.name(other)}" for mine, other in twins.items()]
    found = f"{len(twins)} training images are also in the test split: {listed(pairs)}"
    many = len(twins) > MAX_LEAKED_SHARE * len(train)
    if rule == "refuse" or (rule == "drop" and many):
        raise DataError(
            f"{found}; remove them from one of the two, or set data.leakage to "
            f"{'allow' if many else 'drop or allow'}"
        )
    if rule == "allow":
        notes.append(f"{found}; the test accuracy is too high by them")
        return everything
    notes.append(f"{found}; they are dropped from training")
    return [index for index in everything if index not in twins]


def note_copies(train: ImageSet, copies: Indices, notes: list[str]) -> None:
    """Note the training images that are copies of others, and those under another label."""
    later = np.flatnonzero(copies != np.arange(len(copies)))
    if not later.size:
        return
    pairs = [f"{train.name(int(i))} = {train.name(int(copies[i]))}" for i in later]
    notes.append(f"{len(later)} training images are copies of others: {listed(pairs)}")
    torn = later[train.labels[later] != train.labels[copies[later]]]
    if torn.size:
        names = [train.name(int(i)) for i in torn]
        notes.append(f"{len(torn)} copies have another label than the first: {listed(names)}")


def note_doubts(doubts: Mapping[Doubt, Sequence[str]], white_level: int, notes: list[str]) -> None:
    """Note the names of images that may be meant in another way."""
    if faint := doubts.get("faint"):
        notes.append(
            f"{len(faint)} images of 16 bits use less than a sixteenth of the levels up to "
            f"{white_level or MAX_WHITE}, their white, and are nearly black: {listed(faint)}; if "
            "they hold fewer bits, set data.white_level, to 4095 for 12 bits"
        )
    if flat := doubts.get("flat"):
        notes.append(
            f"{len(flat)} DICOM images are shown in less than a sixteenth of the grey levels, "
            f"nearly all of one grey: {listed(flat)}; write the window that is meant into them "
            "(WindowCenter, WindowWidth)"
        )
    if pages := doubts.get("pages"):
        notes.append(
            f"{len(pages)} files hold several pictures, of which the first is read: "
            f"{listed(pages)}; write the others to files of their own if they are meant"
        )


def _known(ledger: Path) -> set[bytes]:
    try:
        content = ledger.read_bytes()
    except OSError:
        return set()
    starts = range(0, len(content) - _DIGEST_BYTES + 1, _DIGEST_BYTES)
    return {content[start : start + _DIGEST_BYTES] for start in starts}
