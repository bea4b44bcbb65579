"""Read image files below one folder and never outside of it (F33)."""

import functools
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedprompt.data.decode import HEIC_INSTALL, formats
from fedprompt.data.dicom import INSTALL as DICOM_INSTALL
from fedprompt.data.dicom import is_dicom, reads_dicom
from fedprompt.errors import DataError

MAX_FILE_BYTES = 512_000_000
_SUFFIXES = frozenset(
    (
        *(".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".tif", ".tiff", ".webp"),
        *(".pbm", ".pgm", ".png", ".pnm", ".ppm"),
    )
)
_OF_FORMAT = {
    "AVIF": (".avif",),
    "HEIF": (".heic", ".heif", ".hif"),
    "DICOM": (".dcm", ".dicom"),
}
_INSTALL = {".heic": HEIC_INSTALL, ".heif": HEIC_INSTALL, ".dcm": DICOM_INSTALL}


def readable(path: Path) -> bool:
    """Say whether a file is an image by its suffix, in any letter case.

    DICOM files are often named by a number alone: where there is no suffix, or one of digits, the
    file's beginning decides.
    """
    suffix = path.suffix.lower()
    if suffix in suffixes():
        return True
    return (not suffix or suffix[1:].isdigit()) and ".dcm" in suffixes() and _begins_as_dicom(path)


@functools.cache
def suffixes() -> frozenset[str]:
    """Return the suffixes of the formats that are read here."""
    found = {*formats(), *(("DICOM",) if reads_dicom() else ())}
    return _SUFFIXES.union(*(more for name, more in _OF_FORMAT.items() if name in found))


def _begins_as_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return path.is_file() and is_dicom(file.read(132))
    except OSError:
        return False


def images_below(root: Path) -> int:
    """Return how many image files lie at any depth below a folder, hidden ones left out."""
    return sum(
        not name.startswith(".") and readable(Path(place, name))
        for place, _, names in os.walk(root)
        for name in names
    )


def passed_over(found: Counter[str]) -> str:
    """Return how many files of which suffixes are passed over, the most frequent first."""
    counts = ", ".join(f"{n} {suffix or 'without'}" for suffix, n in found.most_common(8))
    more = f" and {len(found) - 8} kinds more" if len(found) > 8 else ""
    cures = {f"{suffix} needs {_INSTALL[suffix]}" for suffix in sorted(found) if suffix in _INSTALL}
    advice = "".join(f"; {cure}" for cure in sorted(cures))
    return f"{found.total()} files are passed over because of their suffix: {counts}{more}{advice}"


@dataclass(frozen=True, eq=False)
class Files:
    """Give the bytes of files by their place in a list of paths relative to ``root``."""

    root: Path
    paths: Sequence[str]

    def content(self, index: int) -> bytes:
        """Return one file's bytes; DataError when it is missing, no file, or far too large."""
        return file_bytes(self.root / self.paths[index])

    def name(self, index: int) -> str:
        """Return the path relative to the root."""
        return self.paths[index]


def file_bytes(path: Path) -> bytes:
    """Return a file's bytes; DataError when it is missing, no file, or far too large."""
    try:
        if not path.is_file():  # also keeps a pipe from blocking the run
            raise DataError(f"{path} is no file")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise DataError(f"{path} is larger than {MAX_FILE_BYTES} bytes")
        return path.read_bytes()
    except (OSError, ValueError) as error:  # a NUL byte in the path
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path} could not be read: {reason}") from error


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
