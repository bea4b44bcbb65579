"""Checkpoints of the server: raw files, and ones whose hash the harness makes fit."""

import json

import numpy as np
import safetensors.numpy

from fedprompt.identity import sha256_arrays, sha256_bytes
from server.run_folder import checkpoint
from server.run_folder.checkpoint import Checkpoint, decode, encode
from tests.fuzz.scratch import folder

CAP = 1 << 16
_BETWEEN = b"\n\n"


def feed(data: bytes) -> None:
    """Decode a checkpoint; a first byte that is odd means: state, blank line, array bytes."""
    content = _sealed(data[1:]) if data[:1] and data[0] % 2 else data[1:]
    path = folder("checkpoint") / "round-00001.safetensors"
    path.write_bytes(content)
    found = decode(path)
    if not (isinstance(found.run, str) and type(found.round) is int and found.round >= 0):
        raise AssertionError(f"run {found.run!r}, round {found.round!r}")
    if not all(np.isfinite(array).all() for array in found.arrays.values()):
        raise AssertionError("arrays that are not finite")
    encode(found)


def seeds() -> list[bytes]:
    """Return honest checkpoints, and the states inside."""
    arrays = {"ctx.A": np.ones((2, 1), np.float32), "ctx.B": np.zeros((1, 4), np.float32)}
    state = Checkpoint("ab" * 32, 3, arrays, {"m/ctx": np.ones(2)})
    written = encode(state)
    texts = [
        {"run": "ab", "round": 3, "order": ["x"], "strikes": {"0": 1}, "quarantined": {"0": 9}},
        {"run": 1, "round": "3", "order": [], "strikes": []},
    ]
    sealed = [b"\1" + json.dumps(t).encode() + _BETWEEN + bytes(8) for t in texts]
    return [b"\0" + written, *sealed]


def _sealed(data: bytes) -> bytes:
    """Return a file whose hash is right, whatever its state says."""
    text, _, values = data.partition(_BETWEEN)
    array = np.frombuffer(values[: len(values) // 4 * 4], np.float32)
    tensors = {checkpoint._ARRAYS + "x": array, checkpoint._OPTIMISER + "y": array}
    state = text.decode("utf-8", "replace")
    digest = sha256_bytes(f"{sha256_arrays(tensors)}|{state}".encode())
    sealed = json.dumps({"sha256": digest, "state": state})
    return bytes(safetensors.numpy.save(tensors, {checkpoint._METADATA: sealed}))
