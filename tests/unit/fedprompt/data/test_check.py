import hashlib
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedprompt.data import check
from fedprompt.data.check import examine, first_copies, note_doubts, seen_in
from fedprompt.data.decode import Decoded
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
    found = examine(holding(encode(1), b"junk", None, encode(2), encode(3)[:60]), 1000)
    assert sorted(found.reasons) == [1, 2, 4]
    assert "no image" in found.reasons[1]
    assert found.reasons[2] == "gone"
    digest = hashlib.sha256(encode(2)).digest()
    assert [d is None for d in found.digests] == [False, True, True, False, True]
    assert found.digests[3] == digest


def test_the_order_is_kept_across_threads(encode: Encode) -> None:
    contents = [encode(seed) for seed in range(200)]
    found = examine(holding(*contents), 1000)
    assert list(found.digests) == [hashlib.sha256(content).digest() for content in contents]


def test_a_second_start_decodes_nothing(encode: Encode, monkeypatch: pytest.MonkeyPatch) -> None:
    images = holding(*(encode(seed) for seed in range(5)), b"junk")
    first = examine(images, 1000)
    decoded: list[bytes] = []

    def count(content: bytes, *, max_pixels: int, white_level: int) -> Decoded:
        decoded.append(content)
        raise DataError("no image")

    monkeypatch.setattr(check, "decode_and_judge", count)
    assert examine(images, 1000).digests == first.digests
    assert decoded == [b"junk"]
    examine(images, 10)  # another limit is another question
    assert len(decoded) == 7
    assert not examine(images, 10, verified=True).reasons
    assert len(decoded) == 7


def test_faint_images_are_told_of_at_every_start() -> None:
    grey = [Image.fromarray(np.full((4, 4), level, np.uint16)) for level in (4095, 60_000)]
    files = [io.BytesIO() for _ in grey]
    for image, file in zip(grey, files, strict=True):
        image.save(file, "PNG")
    images = holding(*(file.getvalue() for file in files))
    for _ in range(2):
        assert examine(images, 1000).doubts == {"faint": [0]}
    assert not examine(replace(images, white_level=4095), 1000).doubts


def test_each_doubt_has_a_note_with_names_and_a_cure() -> None:
    notes: list[str] = []
    note_doubts({}, 0, notes)
    assert notes == []
    note_doubts({"faint": ["a"], "flat": ["b"], "pages": ["c", "d"]}, 0, notes)
    faint, flat, pages = notes
    assert "'a'; if they hold fewer bits, set data.white_level, to 4095 for 12 bits" in faint
    assert "'b'; write the window" in flat
    assert pages.startswith("2 files hold several pictures, of which the first is read: 'c', 'd'")


def test_a_read_only_cache_is_no_fault(encode: Encode, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path, data: bytes) -> None:
        raise StorageError("read-only")

    monkeypatch.setattr(check, "write_atomic", fail)
    assert examine(holding(encode(1)), 1000).reasons == {}


def test_F28_training_images_seen_in_the_test_set() -> None:
    assert seen_in([b"a", b"b", b"a", None], [b"c", b"a", None]) == {0: 1, 2: 1}
    assert seen_in([], [b"c"]) == {}


def test_F28_copies_point_at_the_first() -> None:
    assert first_copies([b"a", b"b", b"a", b"b", b"c"]).tolist() == [0, 1, 0, 1, 4]
    assert first_copies([]).dtype == np.int64
