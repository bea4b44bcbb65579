"""Commit each round in one file: arrays, optimiser and JSON state under one hash.

A round counts once its file is in place. The last few are kept; a damaged one is passed over for
the previous good one, which is named (F21-F23).
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from fedprompt.errors import CheckpointError
from fedprompt.identity import canonical_json, sha256_arrays, sha256_bytes
from fedprompt.prompt_state import PromptState
from fedprompt.storage import write_atomic
from server.gate.judge import is_count
from server.gate.quarantine import Conduct

KEEP = 3  # committed rounds kept on disk

_log = logging.getLogger(__name__)
_METADATA = "fedprompt"  # one key: safetensors writes several in a random order
_ARRAYS, _OPTIMISER = "arrays/", "optimiser/"


@dataclass(frozen=True)
class Checkpoint:
    """Hold everything a run needs to go on after a round."""

    run: str  # digest of what must not change between a run and its resumption
    round: int
    arrays: PromptState
    optimiser: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    conduct: Conduct = field(default_factory=Conduct)  # the sites' strikes and quarantines


def save(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint whole or not at all, then drop the ones older than the last few.

    Raises
    ------
    StorageError
        The disk is full or read-only; earlier checkpoints stay.
    """
    path = folder / f"round-{checkpoint.round:05d}.safetensors"
    write_atomic(path, encode(checkpoint))
    for old in files(folder)[KEEP:]:
        old.unlink(missing_ok=True)
    return path


def load_latest(folder: Path, run: str) -> Checkpoint | None:
    """Return the newest checkpoint that is whole, or None if there is none at all.

    Raises
    ------
    CheckpointError
        Every checkpoint is damaged, or the newest good one belongs to another run.
    """
    paths = files(folder)
    for path in paths:
        try:
            checkpoint = decode(path)
        except CheckpointError as error:
            _log.warning("%s; trying the previous checkpoint", error)
            continue
        if path != paths[0]:
            _log.warning("resuming from %s, the last good checkpoint", path)
        if checkpoint.run != run:
            raise CheckpointError(
                f"{path} belongs to run {checkpoint.run[:12]}, this configuration is run "
                f"{run[:12]}; use the settings it was started with, or another server.output"
            )
        return checkpoint
    if paths:
        names = ", ".join(path.name for path in paths)
        raise CheckpointError(f"all checkpoints in {folder} are damaged ({names}); start afresh")
    return None


def encode(checkpoint: Checkpoint) -> bytes:
    """Return a checkpoint as safetensors bytes; the header carries the JSON state and the hash."""
    tensors = {_ARRAYS + name: array for name, array in checkpoint.arrays.items()}
    tensors |= {_OPTIMISER + name: array for name, array in checkpoint.optimiser.items()}
    tensors = {name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)}
    state = {
        "run": checkpoint.run,
        "round": checkpoint.round,
        "order": list(checkpoint.arrays),
        "strikes": _text_keys(checkpoint.conduct.strikes),
        "quarantined": _text_keys(checkpoint.conduct.quarantined),
        "withheld": _text_keys(checkpoint.conduct.withheld),
    }
    text = canonical_json(state).decode()
    sealed = canonical_json({"sha256": _digest(tensors, text), "state": text}).decode()
    return safetensors.numpy.save(tensors, {_METADATA: sealed})


def decode(path: Path) -> Checkpoint:
    """Read a checkpoint and check its hash.

    Raises
    ------
    CheckpointError
        The file is truncated, changed or not a checkpoint (F22).
    """
    try:
        with safetensors.safe_open(path, framework="np") as file:
            sealed = json.loads((file.metadata() or {}).get(_METADATA, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if sealed["sha256"] != _digest(tensors, sealed["state"]):
            raise CheckpointError(f"{path} is damaged: its hash does not match")
        return _assemble(json.loads(sealed["state"]), tensors)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} could not be read: {error}") from None
    except (KeyError, TypeError, AttributeError, RecursionError):
        raise CheckpointError(f"{path} is damaged: it is no checkpoint of a run") from None


def _assemble(state: dict[str, Any], tensors: Mapping[str, npt.NDArray[Any]]) -> Checkpoint:
    optimiser = {n: t for n, t in tensors.items() if n.startswith(_OPTIMISER)}
    if not isinstance(state["run"], str) or not is_count(state["round"]):
        raise TypeError("the hash fits, but this is no state of a run")
    if not all(np.isfinite(tensor).all() for tensor in tensors.values()):
        raise ValueError("an array holds NaN or infinity")
    return Checkpoint(
        state["run"],
        state["round"],
        PromptState({name: tensors[_ARRAYS + name] for name in state["order"]}),
        {name.removeprefix(_OPTIMISER): tensor for name, tensor in optimiser.items()},
        Conduct(
            _number_keys(state["strikes"]),
            _number_keys(state.get("quarantined", {})),
            _number_keys(state.get("withheld", {})),
        ),
    )


def _text_keys(by_site: Mapping[int, int]) -> dict[str, int]:
    return {str(site): n for site, n in sorted(by_site.items())}


def _number_keys(by_site: Mapping[str, int]) -> dict[int, int]:
    if not all(is_count(n) for n in by_site.values()):
        raise TypeError("found no number of strikes or rounds")
    return {int(site): n for site, n in by_site.items()}


def _digest(tensors: Mapping[str, npt.NDArray[Any]], text: str) -> str:
    return sha256_bytes(f"{sha256_arrays(tensors)}|{text}".encode())


def files(folder: Path) -> list[Path]:
    """Return the checkpoints of a folder, the newest first."""
    return sorted(folder.glob("round-*.safetensors"), reverse=True)
