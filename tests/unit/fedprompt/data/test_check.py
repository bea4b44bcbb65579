from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fedprompt.data import check
from fedprompt.data.check import first_copies, seen_in, unreadable
from fedprompt.data.image_set import ImageSet, image_set
from fedprompt.errors import DataError, StorageError

Encode = Callable[..., bytes]


class Held:
    def __init__(self, contents: list[bytes | None]) -> None:
        self.contents = contents

    def content(self, index: int) -> bytes:
        content = self.contents[index]
        if content is None:
            raise DataError("gone")
        return content

    def name(self, index: int) -> str:
        return str(index)


def holding(*contents: bytes | None) -> ImageSet:
    return image_set(["a", "b"], [0] * len(contents), Held(list(contents)))


def test_F27_unreadable_images_are_found_with_their_reasons(encode: Encode) -> None:
    images = holding(encode(1), b"junk", None, encode(2), encode(3)[:60])
    reasons = unreadable(images, 1000)
    assert sorted(reasons) == [1, 2, 4]
    assert "no image" in reasons[1]
    assert reasons[2] == "gone"


def test_a_second_start_decodes_nothing(encode: Encode, monkeypatch: pytest.MonkeyPatch) -> None:
    images = holding(*(encode(seed) for seed in range(5)), b"junk")
    first = unreadable(images, 1000)
    decoded: list[bytes] = []

    def count(content: bytes, *, max_pixels: int) -> np.ndarray:
        decoded.append(content)
        raise DataError("no image")

    monkeypatch.setattr(check, "decode", count)
    assert list(unreadable(images, 1000)) == list(first) == [5]
    assert decoded == [b"junk"]
    unreadable(images, 10)  # another limit is another question
    assert len(decoded) == 7


def test_a_read_only_cache_is_no_fault(encode: Encode, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path, data: bytes) -> None:
        raise StorageError("read-only")

    monkeypatch.setattr(check, "write_atomic", fail)
    assert unreadable(holding(encode(1)), 1000) == {}


def test_F28_training_images_seen_in_the_test_set() -> None:
    assert seen_in(holding(b"a", b"b", b"a"), holding(b"c", b"a")) == {0: 1, 2: 1}
    assert seen_in(holding(), holding(b"c")) == {}


def test_F28_copies_point_at_the_first() -> None:
    assert first_copies(holding(b"a", b"b", b"a", b"b", b"c")).tolist() == [0, 1, 0, 1, 4]
    assert first_copies(holding()).dtype == np.int64
