"""One file a round under one hash; the last good one is found again (F21-F23)."""

import errno
import json
import logging
import os
from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy

from fedprompt.errors import CheckpointError, StorageError
from fedprompt.identity import canonical_json
from server.gate.quarantine import Conduct
from server.run_folder import checkpoint
from server.run_folder.checkpoint import KEEP, Checkpoint, decode, encode, load_latest, save


def make(server_round=1, run="r"):
    arrays = {
        "ctx.B": np.arange(6, dtype=np.float32).reshape(2, 3),
        "ctx.A": np.float32([[1.5, -2]]).T,
    }
    optimiser = {"m_t/ctx": np.array([[0.1, 1e-300]])}
    return Checkpoint(run, server_round, arrays, optimiser, Conduct({3: 2, 11: 1}, {3: 12}, {5: 1}))


def equal(one, other):
    same = (one.run, one.round, one.conduct, list(one.arrays)) == (
        other.run, other.round, other.conduct, list(other.arrays),
    )  # fmt: skip
    pairs = [(one.arrays, other.arrays), (one.optimiser, other.optimiser)]
    return same and all(
        a.keys() == b.keys()
        and all(a[n].dtype == b[n].dtype and a[n].tobytes() == b[n].tobytes() for n in a)
        for a, b in pairs
    )


def test_a_checkpoint_comes_back_bit_for_bit(tmp_path):
    assert equal(decode(save(tmp_path, make())), make())


def test_equal_checkpoints_have_equal_bytes():
    assert encode(make()) == encode(make())


def test_only_the_last_few_are_kept(tmp_path):
    for server_round in range(8):
        save(tmp_path, make(server_round))
    assert len(list(tmp_path.iterdir())) == KEEP
    assert load_latest(tmp_path, "r").round == 7


def test_nothing_there_is_no_error(tmp_path):
    assert load_latest(tmp_path / "none", "r") is None


def test_another_run_is_refused(tmp_path):
    save(tmp_path, make(run="other"))
    with pytest.raises(CheckpointError, match="belongs to run other"):
        load_latest(tmp_path, "mine")


def test_every_flipped_byte_is_noticed(tmp_path):
    path = save(tmp_path, make())
    data = path.read_bytes()
    for i in range(len(data)):
        path.write_bytes(data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :])
        with pytest.raises(CheckpointError):
            decode(path)


def test_every_truncation_is_noticed(tmp_path):
    path = save(tmp_path, make())
    data = path.read_bytes()
    for size in range(0, len(data), 7):
        path.write_bytes(data[:size])
        with pytest.raises(CheckpointError):
            decode(path)


def test_a_damaged_file_is_passed_over_and_both_are_named(tmp_path, caplog):
    save(tmp_path, make(1))
    bad = save(tmp_path, make(2))
    bad.write_bytes(bad.read_bytes()[:-1] + b"\xff")
    with caplog.at_level(logging.WARNING):
        assert load_latest(tmp_path, "r").round == 1
    assert "round-00002.safetensors is damaged" in caplog.text
    assert "resuming from" in caplog.text
    assert "round-00001.safetensors" in caplog.text


def test_nothing_but_damage_is_an_error(tmp_path):
    save(tmp_path, make()).write_bytes(b"")
    with pytest.raises(CheckpointError, match="all checkpoints"):
        load_latest(tmp_path, "r")


def test_a_full_disk_leaves_the_last_round_whole(tmp_path, monkeypatch):
    save(tmp_path, make(1))

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        save(tmp_path, make(2))
    assert equal(load_latest(tmp_path, "r"), make(1))
    assert len(list(tmp_path.iterdir())) == 1


def test_a_checkpoint_from_before_quarantine_is_read(tmp_path):
    """Its state has no such key; the hash is over the state as it was written."""
    new = make()
    old = replace(new, conduct=Conduct(new.conduct.strikes))
    data = encode(old)
    text, sealed = _state(data)
    before = text.replace('"quarantined":{},', "")
    assert before != text
    tensors = safetensors.numpy.load(data)
    resealed = {"sha256": checkpoint._digest(tensors, before), "state": before}
    metadata = {"fedprompt": canonical_json(resealed).decode()}
    path = tmp_path / "round-00001.safetensors"
    path.write_bytes(safetensors.numpy.save(tensors, metadata))
    assert equal(decode(path), old)
    assert sealed.keys() == {"sha256", "state"}


def _state(data):
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    sealed = json.loads(header["__metadata__"]["fedprompt"])
    return sealed["state"], sealed
