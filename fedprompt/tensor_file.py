"""Read and write named arrays as safetensors, refusing what the library lets through (F24, F25).

The library accepts duplicate names (the last wins), files without tensors and NaN; it also trusts
the caller about sizes. The header is therefore read here first: eight bytes of length, then JSON.
"""

import json
import math
import reprlib
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from fedprompt.errors import ArtefactError

Tensors = dict[str, npt.NDArray[Any]]

_WIDTH = {"F16": 2, "F32": 4, "F64": 8, "I32": 4, "I64": 8}  # bytes a value of what a prompt holds
_MAX_HEADER = 1 << 20  # bytes; a prompt's header is a few hundred
_LENGTH = 8  # bytes of the header's own length, little-endian
_MAX_AXES = 8
_MAX_SIDE = 1 << 40  # values along one axis; larger numbers only make slow arithmetic


def dump(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """Return the safetensors bytes of some arrays, the same bytes for the same values.

    Raises
    ------
    ArtefactError
        There is no array, one holds NaN or infinity, or a dtype is not float or int.
    """
    ordered = {name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)}
    if not ordered:
        raise ArtefactError("there are no tensors to save; expected at least one")
    _check_values(ordered)
    data: bytes = safetensors.numpy.save(ordered)
    return _checked(data)


def parse(data: bytes) -> Tensors:
    """Return the arrays of safetensors bytes.

    Raises
    ------
    ArtefactError
        The bytes are pickle, a zip (``.pt``, ``.npz``) or damaged; a name occurs twice; there are
        no tensors; the declared sizes differ from the bytes; a value is NaN or infinite.
    """
    try:
        arrays: Tensors = safetensors.numpy.load(_checked(data))
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ArtefactError(f"the tensors are not readable: {error}") from None
    _check_values(arrays)
    return arrays


def _checked(data: bytes) -> bytes:
    """Return the bytes once their header fits them; nothing is allocated on a header's word."""
    magic = data[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
    # a header of 640 bytes has a length that begins as a pickle does, but then comes its JSON
    if magic and data[_LENGTH : _LENGTH + 1] != b"{":
        raise ArtefactError(
            "found a pickle or zip (.pt, .npz) where safetensors was expected; it was not opened, "
            "because unpickling runs the sender's code: ask for the safetensors file"
        )
    length = int.from_bytes(data[:_LENGTH], "little")
    if len(data) <= _LENGTH or not 2 <= length <= min(_MAX_HEADER, len(data) - _LENGTH):
        raise ArtefactError(
            f"the safetensors header claims {length:,} bytes in a file of {len(data):,}; the file "
            "is damaged or is no safetensors file"
        )
    header = _read_header(data[_LENGTH : _LENGTH + length])
    declared = sum(_size(name, entry) for name, entry in header.items())
    if declared != len(data) - _LENGTH - length:
        raise ArtefactError(
            f"the safetensors header declares {declared:,} bytes of tensors, the file holds "
            f"{len(data) - _LENGTH - length:,}; it is truncated or damaged"
        )
    return data


def _read_header(text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text, object_pairs_hook=_refuse_duplicates)
    except (ValueError, RecursionError) as error:
        raise ArtefactError(f"the safetensors header is not JSON: {error}") from None
    if not isinstance(header, dict):
        raise ArtefactError("the safetensors header is not a table of tensors; it is damaged")
    header.pop("__metadata__", None)
    if not header:
        raise ArtefactError("the safetensors file holds no tensors; expected at least one")
    return header


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        times = Counter(name for name, _ in pairs)
        twice = sorted(name for name, count in times.items() if count > 1)
        raise ArtefactError(
            f"{', '.join(twice[:3])} occurs twice in the safetensors header; which one is meant is "
            "unknown, so the file is refused"
        )
    return found


def _size(name: str, entry: object) -> int:
    """Return the bytes a tensor takes, or refuse a dtype or shape that no prompt has."""
    if isinstance(entry, dict):
        dtype, shape = entry.get("dtype"), entry.get("shape")
        if isinstance(dtype, str) and dtype in _WIDTH and _is_shape(shape):
            return _WIDTH[dtype] * math.prod(entry["shape"])
    raise ArtefactError(
        f"tensor {name[:80]!r} is declared as {reprlib.repr(entry)}; expected a dtype of "
        f"{', '.join(_WIDTH)} and a shape of at most {_MAX_AXES} axes"
    )


def _is_shape(shape: object) -> bool:
    if not isinstance(shape, list) or len(shape) > _MAX_AXES:
        return False
    return all(type(side) is int and 0 <= side <= _MAX_SIDE for side in shape)


def _check_values(arrays: Tensors) -> None:
    for name, array in arrays.items():
        if array.dtype.kind not in "fi" or not np.isfinite(array).all():
            raise ArtefactError(
                f"tensor {name!r} ({array.dtype}) holds NaN, infinity or no numbers; "
                "expected finite values"
            )
