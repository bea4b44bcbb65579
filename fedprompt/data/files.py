"""Read image files below one folder and never outside of it (F33)."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedprompt.errors import DataError

MAX_FILE_BYTES = 512_000_000
SUFFIXES = (
    *(".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".tif", ".tiff", ".webp"),
    *(".pbm", ".pgm", ".png", ".pnm", ".ppm"),
)


def readable(name: str) -> bool:
    """Say whether a file is an image by its suffix, in any letter case."""
    return Path(name).suffix.lower() in SUFFIXES


def images_below(root: Path) -> int:
    """Return how many image files lie at any depth below a folder, hidden ones left out."""
    return sum(
        readable(name) and not name.startswith(".")
        for _, _, names in os.walk(root)
        for name in names
    )


def passed_over(suffixes: Counter[str]) -> str:
    """Return how many files of which suffixes are passed over, the most frequent first."""
    counts = ", ".join(f"{n} {suffix or 'without'}" for suffix, n in suffixes.most_common(8))
    more = f" and {len(suffixes) - 8} kinds more" if len(suffixes) > 8 else ""
    return f"{suffixes.total()} files are passed over because of their suffix: {counts}{more}"


@dataclass(frozen=True, eq=False)
class Files:
    """Give the bytes of files by their place in a list of paths relative to ``root``."""

    root: Path
    paths: Sequence[str]

    def content(self, index: int) -> bytes:
        """Return one file's bytes; DataError when it is missing, no file, or far too large."""
        path = self.root / self.paths[index]
        try:
            if not path.is_file():  # also keeps a pipe from blocking the run
                raise DataError(f"{path} is no file")
            if path.stat().st_size > MAX_FILE_BYTES:
                raise DataError(f"{path} is larger than {MAX_FILE_BYTES} bytes")
            return path.read_bytes()
        except OSError as error:
            raise DataError(f"{path} could not be read: {error.strerror}") from error

    def name(self, index: int) -> str:
        """Return the path relative to the root."""
        return self.paths[index]


def inside(root: Path, text: str) -> str:
    """Return a path relative to ``root``, links resolved.

    Raises
    ------
    DataError
        The path leaves the folder, by ``..``, by a link or by being absolute (F33).
    """
    try:
        resolved = (root / text).resolve()
    except (OSError, ValueError, RuntimeError) as error:  # a NUL byte, a loop of links
        raise DataError(f"{text!r} is no path: {error}") from error
    if not resolved.is_relative_to(root):
        raise DataError(
            f"{text!r} leads out of {root}; move the images there or set data.root to a folder "
            "that holds them all"
        )
    return str(resolved.relative_to(root))
