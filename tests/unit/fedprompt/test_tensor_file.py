import contextlib
import io
import json
import pickle
import struct
import zipfile

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from fedprompt.errors import ArtefactError
from fedprompt.tensor_file import dump, parse

ARRAYS = {"ctx.A": np.ones((4, 1), np.float32), "ctx.B": np.zeros((1, 8), np.float16)}


def file_of(header: object, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def entry(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_round_trip_and_determinism() -> None:
    data = dump(ARRAYS)
    assert data == dump(dict(reversed(ARRAYS.items())))
    found = parse(data)
    assert set(found) == set(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


def test_an_array_that_is_not_contiguous_keeps_its_values() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3).T
    np.testing.assert_array_equal(parse(dump({"a": array}))["a"], array)


class Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return (pytest.fail, ("unpickled",))


def test_f24_pickle_and_archives_are_never_opened() -> None:
    npz, zipped = io.BytesIO(), io.BytesIO()
    np.savez(npz, a=np.ones(3))
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Bomb()))
    for data in (pickle.dumps(Bomb()), npz.getvalue(), zipped.getvalue()):
        with pytest.raises(ArtefactError, match="safetensors"):
            parse(data)


@pytest.mark.parametrize("length", [0x0280, 0x0380, 0x0480, 0x0580, 0x4B50, 0x10280])
def test_a_header_whose_length_looks_like_a_pickle_is_read(length: int) -> None:
    """Its two lowest bytes are those that pickles, or zips, begin with."""
    header = json.dumps({"a": entry([2], 0, 8)}).encode().ljust(length)
    data = file_of(header, np.ones(2, np.float32).tobytes())
    assert data[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK")
    np.testing.assert_array_equal(parse(data)["a"], np.ones(2))


def test_f25_duplicate_names_are_refused() -> None:
    one, two = json.dumps(entry([1], 0, 4)), json.dumps(entry([1], 4, 8))
    data = file_of(f'{{"a":{one},"a":{two}}}'.encode(), b"\0" * 8)
    with pytest.raises(ArtefactError, match="a occurs twice"):
        parse(data)


def test_f25_no_tensors_is_refused() -> None:
    assert safetensors.numpy.load(file_of({})) == {}  # the library accepts it
    for data in (file_of({}), file_of({"__metadata__": {"a": "b"}})):
        with pytest.raises(ArtefactError, match="no tensors"):
            parse(data)
    with pytest.raises(ArtefactError, match="no tensors"):
        dump({})


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_f25_values_that_are_not_finite_are_refused(value: float) -> None:
    array = np.array([1, value], np.float32)
    with pytest.raises(ArtefactError, match="NaN"):
        parse(safetensors.numpy.save({"a": array}))
    with pytest.raises(ArtefactError, match="NaN"):
        dump({"a": array})


def test_a_header_bomb_allocates_nothing() -> None:
    with pytest.raises(ArtefactError, match="claims"):
        parse(struct.pack("<Q", 1 << 62) + b"{}")
    huge = file_of({"a": entry([1 << 30, 1 << 30], 0, 1 << 62)}, b"\0" * 16)
    with pytest.raises(ArtefactError, match="declares"):
        parse(huge)


@pytest.mark.parametrize(
    "header",
    [
        [],
        {"a": 3},
        {"a": entry([-1], 0, 4)},
        {"a": entry([1], 0, 4, "F8_E4M3")},
        {"a": entry([2], 0, 4)},
        {"a": entry([1], 0, 4) | {"shape": [True]}},
        {"a": entry([1], 4, 8)},
        b"{" * 5000,
        b"[" * 100_000,
        b"\xff\xfe",
    ],
)
def test_headers_that_lie_are_refused(header: object) -> None:
    with pytest.raises(ArtefactError):
        parse(file_of(header, b"\0" * 4))


def test_truncation_anywhere_is_refused() -> None:
    data = dump(ARRAYS)
    for end in range(len(data)):
        with pytest.raises(ArtefactError):
            parse(data[:end])
    with pytest.raises(ArtefactError):
        parse(data + b"\0")


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_a_changed_byte_never_crashes(place: int, value: int) -> None:
    data = bytearray(dump(ARRAYS))
    data[place % len(data)] = value
    with contextlib.suppress(ArtefactError):
        parse(bytes(data))


@given(st.binary(max_size=200), st.binary(max_size=64))
def test_any_bytes_never_crash(header: bytes, body: bytes) -> None:
    for data in (header, file_of(header, body)):
        with contextlib.suppress(ArtefactError):
            parse(data)
