"""Fetch Fashion-MNIST, 70,000 real images, from Debian without root or from the hub.

Whichever answers, the four IDX files are compared with pinned hashes and kept in the cache. Source:
Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747 (MIT licence).
"""

import contextlib
import gzip
import os
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedprompt.data.cache import cache_folder
from fedprompt.data.decode import decode
from fedprompt.data.hub import read_hub
from fedprompt.data.splits import Split, Splits
from fedprompt.errors import DataError
from fedprompt.identity import sha256_bytes, sha256_file
from fedprompt.storage import write_atomic

NAME = "fashion-mnist"
CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
SIDE = 28  # pixels
SHA256 = {  # of the uncompressed files
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
DEBIAN_PACKAGE = "dataset-fashion-mnist"
DEBIAN_FOLDER = Path("usr/share/datasets/fashion-mnist")
HUB_NAME = "hf:zalando-datasets/fashion_mnist"
_SECONDS = 900  # for one command

_Fetch = Callable[[], dict[str, bytes]]


@dataclass(frozen=True, eq=False)
class _Pixels:
    """Give each image as a PGM file, so that the one decode rule applies."""

    images: npt.NDArray[np.uint8]  # [images 28 28]
    origin: str

    def content(self, index: int) -> bytes:
        pixels: bytes = self.images[index].tobytes()
        return b"P5 %d %d 255\n" % (SIDE, SIDE) + pixels

    def name(self, index: int) -> str:
        return f"{self.origin}[{index}]"


def read_fashion_mnist() -> Splits:
    """Return 60,000 training and 10,000 test images, fetched at the first call.

    Raises
    ------
    DataError
        Neither Debian nor the hub gave the four files; the message names both reasons.
    """
    folder = cache_folder() / NAME
    if not _complete(folder):
        _fetch(folder)
    return Splits(CLASSES, True, _split(folder, "train"), _split(folder, "t10k"), verified=True)


def _complete(folder: Path) -> bool:
    """Compare the cached files with their hashes: a damaged one is fetched again."""
    return all(
        (folder / name).is_file() and sha256_file(folder / name) == digest
        for name, digest in SHA256.items()
    )


def _fetch(folder: Path) -> None:
    tries: dict[str, _Fetch] = {
        f"Debian's package {DEBIAN_PACKAGE}": fetch_from_debian,
        f"the Hugging Face hub ({HUB_NAME.removeprefix('hf:')})": fetch_from_hub,
    }
    reasons = []
    for origin, fetch in tries.items():
        try:
            files = fetch()
            _check_hashes(files)
        except DataError as error:
            reasons.append(f"{origin}: {error}")
            continue
        for name, content in files.items():
            write_atomic(folder / name, content)
        return
    raise DataError(
        f"Fashion-MNIST could not be fetched. {'. '.join(reasons)}. Connect to the internet, put "
        f"{', '.join(SHA256)} into {folder}, or set data.source to images of your own"
    )


def fetch_from_debian() -> dict[str, bytes]:
    """Return the four files from the installed package, or download and unpack it without root.

    Raises
    ------
    DataError
        This is no Debian, or its mirror does not answer.
    """
    if (Path("/") / DEBIAN_FOLDER).is_dir():
        return _unzipped(Path("/") / DEBIAN_FOLDER)
    with tempfile.TemporaryDirectory(prefix="fedprompt-") as temporary:
        folder = Path(temporary)
        try:
            _run("apt-get", "download", DEBIAN_PACKAGE, folder=folder)
        except DataError:
            _download_with_own_lists(folder)
        packages = list(folder.glob(f"{DEBIAN_PACKAGE}_*.deb"))
        if not packages:
            raise DataError("apt-get left no package")
        _run("dpkg-deb", "-x", str(packages[0]), "unpacked", folder=folder)
        return _unzipped(folder / "unpacked" / DEBIAN_FOLDER)


def fetch_from_hub() -> dict[str, bytes]:
    """Return the four files, rebuilt from the hub's copy.

    Raises
    ------
    DataError
        The hub cannot be reached, or `datasets` is not installed.
    """
    try:
        splits = read_hub(HUB_NAME)
    except ImportError as error:
        raise DataError("the package datasets is not installed: pip install datasets") from error
    if splits.test is None:
        raise DataError("the hub's copy has no test split")
    return _idx("train", splits.train) | _idx("t10k", splits.test)


def _download_with_own_lists(folder: Path) -> None:
    """Download where the system's package lists are missing: keep lists of our own."""
    for name in ("lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    own = ["-o", f"Dir::State::Lists={folder}/lists", "-o", f"Dir::Cache={folder}/cache"]
    if os.geteuid() == 0:
        own += ["-o", "APT::Sandbox::User=root"]  # its usual user may not enter our folder
    with contextlib.suppress(DataError):  # one dead mirror of several fails the whole update
        _run("apt-get", *own, "update", folder=folder)
    _run("apt-get", *own, "download", DEBIAN_PACKAGE, folder=folder)


def _run(*command: str, folder: Path) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DataError(f"{command[0]} could not be run: {error}") from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("E:")]
        reason = " ".join(lines or done.stderr.splitlines()[-1:]) or f"exit {done.returncode}"
        raise DataError(f"{command[0]} failed: {reason}")


def _unzipped(folder: Path) -> dict[str, bytes]:
    try:
        return {name: gzip.decompress((folder / f"{name}.gz").read_bytes()) for name in SHA256}
    except (OSError, EOFError) as error:
        raise DataError(f"{folder} does not hold the four files: {error}") from error


def _idx(prefix: str, split: Split) -> dict[str, bytes]:
    """Write the IDX format: 0x0000 08 (uint8), number of axes, their lengths, the values."""
    images = [decode(split.source.content(i))[:, :, 0] for i in range(len(split.labels))]
    lengths = np.array([len(images), SIDE, SIDE], dtype=">u4").tobytes()
    labels = split.labels.astype(np.uint8).tobytes()
    return {
        f"{prefix}-images-idx3-ubyte": b"\0\0\x08\x03" + lengths + np.stack(images).tobytes(),
        f"{prefix}-labels-idx1-ubyte": b"\0\0\x08\x01" + lengths[:4] + labels,
    }


def _check_hashes(files: dict[str, bytes]) -> None:
    for name, digest in SHA256.items():
        found = sha256_bytes(files[name])
        if found != digest:
            raise DataError(f"{name} has the SHA-256 {found}; expected {digest}")


def _split(folder: Path, prefix: str) -> Split:
    pixels = np.memmap(folder / f"{prefix}-images-idx3-ubyte", np.uint8, "r", offset=16)
    labels = np.fromfile(folder / f"{prefix}-labels-idx1-ubyte", np.uint8, offset=8)
    return Split(labels.astype(np.int64), _Pixels(pixels.reshape(-1, SIDE, SIDE), prefix))
