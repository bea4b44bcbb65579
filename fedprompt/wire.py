"""The messages between server and sites, and the library's one door to Flower's records.

PromptState travel raw: dtype, shape and little-endian bytes, without the .npy header that can claim
another size than it brings (F03). A reply's receipt binds it to run, round, site and identity.
"""

import hashlib
import math
import secrets
from collections.abc import Mapping
from enum import StrEnum

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord

from fedprompt.errors import FedpromptError
from fedprompt.identity import canonical_json, sha256_bytes
from fedprompt.prompt_state import PromptState, Shapes

ARRAYS, METRICS, CONFIG, IDENTITY = "arrays", "metrics", "config", "identity"
CENTRES = "query.centres"  # kind of the message that asks for what a prompt may start from
RAW = "raw"  # Flower's `stype`: how the bytes are to be read; short, as it travels with each
SHARED = ("version", "backbone", "tokenizer", "classes", "method")  # equal at every site

LARGEST_NUMBER = 32_000.0  # of a prompt: CLIP's tokens hold a hundredth, float16 the double

DECLINED = "refused by the site's policy"  # how an error begins that is a site's right


class Reason(StrEnum):
    """Why a payload was refused; the code that lands in the round record."""

    NOT_FINITE = "not-finite"  # F01
    MISSING_ARRAY = "missing-array"  # F02
    EXTRA_ARRAY = "extra-array"  # F02
    WRONG_SHAPE = "wrong-shape"  # F02
    WRONG_DTYPE = "wrong-dtype"  # F02
    WRONG_SIZE = "wrong-size"  # F03, F04


class WireError(FedpromptError):
    """Refuse a payload, with a reason code."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def to_array_record(arrays: Mapping[str, npt.NDArray[np.floating]], dtype: str) -> ArrayRecord:
    """Pack named arrays for the wire as ``float32`` or ``float16``."""
    little = np.dtype(dtype).newbyteorder("<")
    record = ArrayRecord()
    for name, array in arrays.items():
        with np.errstate(over="ignore"):  # the receiver refuses an overflow as not finite
            data = np.asarray(array, dtype=little).tobytes()
        record[name] = Array(dtype=dtype, shape=tuple(array.shape), stype=RAW, data=data)
    return record


def from_array_record(record: ArrayRecord, shapes: Shapes, dtype: str) -> PromptState:
    """Unpack exactly the arrays named in ``shapes``; never broadcast, never cast a shape.

    Parameters
    ----------
    record
        What arrived.
    shapes
        Every expected name with its shape.
    dtype
        The dtype agreed on, ``float32`` or ``float16``.

    Raises
    ------
    WireError
        With the reason code, before anything of a claimed size is allocated.
    """
    _check_names(set(record), set(shapes))
    return PromptState({name: _unpack(name, record[name], shapes[name], dtype) for name in shapes})


def nonce() -> int:
    """Return 62 random bits, which nobody can foresee; every one takes the same bytes to send."""
    return 1 << 62 | secrets.randbits(62)


def receipt(run: str, server_round: int, node: int, identity: str) -> int:
    """Return 63 bits that bind a reply to its run, round, node and identity (F11-F14).

    It is a checksum against mix-ups and replays, not a signature: node authentication is Flower's.
    """
    text = f"{run}|{server_round}|{node}|{identity}".encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "little") >> 1


def identity_digest(identity: Mapping[str, str]) -> str:
    """Return one hash of what server and sites must agree on: the fields in ``SHARED``."""
    return sha256_bytes(canonical_json({key: identity[key] for key in SHARED}))


def _check_names(found: set[str], expected: set[str]) -> None:
    if missing := expected - found:
        raise WireError(Reason.MISSING_ARRAY, f"arrays {sorted(missing)} are missing")
    if extra := found - expected:
        raise WireError(Reason.EXTRA_ARRAY, f"arrays {sorted(extra)[:3]} were not asked for")


def _unpack(name: str, array: Array, shape: tuple[int, ...], dtype: str) -> npt.NDArray[np.float32]:
    if array.stype != RAW or array.dtype != dtype:
        raise WireError(
            Reason.WRONG_DTYPE, f"{name} is {array.dtype}/{array.stype}, expected {dtype}/{RAW}"
        )
    if tuple(array.shape) != tuple(shape):
        raise WireError(Reason.WRONG_SHAPE, f"{name} is {tuple(array.shape)}, expected {shape}")
    size = np.dtype(dtype).itemsize * math.prod(shape)
    if len(array.data) != size:
        raise WireError(Reason.WRONG_SIZE, f"{name} has {len(array.data)} bytes, expected {size}")
    little = np.dtype(dtype).newbyteorder("<")
    values = np.frombuffer(array.data, dtype=little).reshape(shape).astype(np.float32)
    if not np.isfinite(values).all():
        raise WireError(Reason.NOT_FINITE, f"{name} holds NaN or infinity")
    return values
