import gzip
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fedprompt.data import fashion_mnist as module
from fedprompt.data.decode import decode
from fedprompt.data.fashion_mnist import (
    CLASSES,
    SHA256,
    fetch_from_debian,
    fetch_from_hub,
    read_fashion_mnist,
)
from fedprompt.data.splits import Split, Splits
from fedprompt.errors import DataError
from fedprompt.identity import sha256_bytes

Encode = Callable[..., bytes]
PIXELS = np.random.default_rng(0).integers(0, 256, (3, 28, 28), dtype=np.uint8)
LABELS = np.array([9, 0, 3])


class Pgm:
    def content(self, index: int) -> bytes:
        pixels: bytes = PIXELS[index].tobytes()
        return b"P5 28 28 255\n" + pixels

    def name(self, index: int) -> str:
        return str(index)


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Stand in for the 70,000 images: three, written in the IDX format, pinned."""
    split = Split(LABELS, Pgm())
    made = module._idx("train", split) | module._idx("t10k", split)
    monkeypatch.setattr(module, "SHA256", {name: sha256_bytes(made[name]) for name in SHA256})
    return made


def test_idx_is_the_published_format(files: dict[str, bytes]) -> None:
    assert files["t10k-labels-idx1-ubyte"] == bytes([0, 0, 8, 1, 0, 0, 0, 3, 9, 0, 3])
    head = bytes([0, 0, 8, 3, 0, 0, 0, 3, 0, 0, 0, 28, 0, 0, 0, 28])
    assert files["train-images-idx3-ubyte"] == head + PIXELS.tobytes()


def test_fetched_once_then_read_from_the_cache(
    files: dict[str, bytes], own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def fetch() -> dict[str, bytes]:
        calls.append(1)
        return files

    monkeypatch.setattr(module, "fetch_from_debian", fetch)
    for _ in range(2):
        splits = read_fashion_mnist()
    assert len(calls) == 1
    assert (splits.classes, splits.numbered, splits.verified) == (CLASSES, True, True)
    assert splits.train.labels.tolist() == LABELS.tolist()
    decoded = decode(splits.train.source.content(1))  # the one decode rule applies
    np.testing.assert_array_equal(decoded, PIXELS[1][:, :, None].repeat(3, axis=2))
    assert splits.test is not None
    assert splits.test.source.name(2) == "t10k[2]"
    # a damaged file is fetched again
    (own_cache / "fashion-mnist" / "t10k-images-idx3-ubyte").write_bytes(b"damaged")
    read_fashion_mnist()
    assert len(calls) == 2


def test_the_hub_answers_when_debian_does_not(
    files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    split = Split(LABELS, Pgm())
    monkeypatch.setattr(module, "fetch_from_debian", refuse("apt-get could not be run"))
    monkeypatch.setattr(module, "read_hub", lambda name: Splits(CLASSES, True, split, split))
    assert read_fashion_mnist().train.labels.tolist() == LABELS.tolist()


def test_both_tries_are_named(monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> None:
    monkeypatch.setattr(module, "fetch_from_debian", refuse("no mirror"))
    monkeypatch.setattr(module, "fetch_from_hub", refuse("no internet"))
    with pytest.raises(DataError, match=r"Debian's package .*: no mirror.*hub .*: no internet"):
        read_fashion_mnist()
    assert not (own_cache / "fashion-mnist").exists()


def test_a_wrong_hash_is_refused_and_nothing_is_kept(
    files: dict[str, bytes], own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = files | {"train-labels-idx1-ubyte": b"other"}
    monkeypatch.setattr(module, "fetch_from_debian", lambda: wrong)
    monkeypatch.setattr(module, "fetch_from_hub", refuse("no internet"))
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte has the SHA-256 .*; expected"):
        read_fashion_mnist()
    assert not (own_cache / "fashion-mnist").exists()


def refuse(message: str) -> Callable[[], dict[str, bytes]]:
    def fetch() -> dict[str, bytes]:
        raise DataError(message)

    return fetch


def commands(
    monkeypatch: pytest.MonkeyPatch, answer: Callable[[list[str], Path], str]
) -> list[list[str]]:
    """Answer commands with an error text, or "" for success; return those that were run."""
    asked: list[list[str]] = []

    def run(command: list[str], *, cwd: Path, **_: object) -> subprocess.CompletedProcess[str]:
        asked.append(list(command))
        error = answer(list(command), cwd)
        return subprocess.CompletedProcess(command, 100 if error else 0, "", error)

    monkeypatch.setattr(module, "DEBIAN_FOLDER", Path("usr/share/nowhere"))
    monkeypatch.setattr(subprocess, "run", run)
    return asked


def test_debian_without_package_lists_keeps_its_own(
    files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(command: list[str], folder: Path) -> str:
        if command[:2] == ["apt-get", "download"]:
            return "E: Unable to locate package dataset-fashion-mnist"
        if command[-2:-1] == ["download"]:
            (folder / "dataset-fashion-mnist_1_all.deb").write_bytes(b"")
        if command[0] == "dpkg-deb":
            unpacked = folder / command[-1] / module.DEBIAN_FOLDER
            unpacked.mkdir(parents=True)
            for name, content in files.items():
                (unpacked / f"{name}.gz").write_bytes(gzip.compress(content))
        return ""

    asked = commands(monkeypatch, answer)
    assert fetch_from_debian() == files
    assert [c[0] for c in asked] == ["apt-get", "apt-get", "apt-get", "dpkg-deb"]
    assert any(part.startswith("Dir::State::Lists=") for part in asked[1])


def test_an_unreachable_mirror_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    commands(monkeypatch, lambda *_: "W: noise\nE: Could not resolve 'deb.debian.org'")
    with pytest.raises(DataError, match="apt-get failed: E: Could not resolve"):
        fetch_from_debian()


def test_no_debian(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: object, **__: object) -> None:
        raise FileNotFoundError(2, "No such file or directory", "apt-get")

    monkeypatch.setattr(module, "DEBIAN_FOLDER", Path("usr/share/nowhere"))
    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(DataError, match="apt-get could not be run"):
        fetch_from_debian()


def test_a_package_without_the_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(command: list[str], folder: Path) -> str:
        (folder / "dataset-fashion-mnist_1_all.deb").write_bytes(b"")
        return ""

    commands(monkeypatch, answer)
    with pytest.raises(DataError, match="does not hold the four files"):
        fetch_from_debian()


def test_the_hub_without_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> Splits:
        raise ImportError("datasets")

    monkeypatch.setattr(module, "read_hub", missing)
    with pytest.raises(DataError, match="pip install datasets"):
        fetch_from_hub()


@pytest.mark.slow
def test_the_real_images_download_and_match_their_hashes() -> None:
    if shutil.which("apt-get") is None or not _resolves("deb.debian.org"):
        pytest.skip("no Debian mirror can be reached from here")
    splits = read_fashion_mnist()
    assert splits.test is not None
    assert np.bincount(splits.train.labels).tolist() == [6000] * 10
    assert np.bincount(splits.test.labels).tolist() == [1000] * 10
    assert decode(splits.train.source.content(59_999)).shape == (28, 28, 3)


def _resolves(host: str) -> bool:
    try:
        socket.getaddrinfo(host, 80)
    except OSError:
        return False
    return True
