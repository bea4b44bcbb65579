"""Kill the server anywhere: the resumed run ends in the bytes of an uninterrupted one (F21-F23)."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import fedprompt
from fedprompt.errors import CheckpointError, ConfigError, StorageError
from fedprompt.run_folder import RunFolder
from server.rounds import attempt, loop
from server.rounds.local_grid import LocalGrid
from server.rounds.loop import Rounds
from server.run_folder import checkpoint
from server.run_folder.report.run import read_run
from tests import round_lines
from tests.sites import client, config, start, task

SITES, ROUNDS = 4, 4
SETTINGS = {"rounds": ROUNDS, "fraction": 0.5, "strategy": "fedadam"}


class Killed(BaseException):
    """Stand for a kill: nothing may catch it."""


def run(folder, **changes):
    with LocalGrid(client(), SITES, {}) as grid:
        chosen = config(folder, **(SETTINGS | changes))
        return Rounds(grid, task(start(rank=2)), chosen, SITES).run()


def final_bytes(folder):
    """Return what must not depend on interruptions: the last checkpoint's bytes."""
    return (folder / "checkpoints" / f"round-{ROUNDS:05d}.safetensors").read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Run once without interruption."""
    folder = tmp_path_factory.mktemp("whole")
    run(folder)
    return folder


MOMENTS = ("training", "before the line", "before the commit", "after")
KILLS = [(k, m) for k in range(ROUNDS + 1) for m in MOMENTS if k or m != "training"]


@pytest.mark.parametrize(("killed", "moment"), KILLS)
def test_F21_a_kill_in_any_round_ends_in_the_same_bytes(
    tmp_path, monkeypatch, whole, killed, moment
):
    _die(monkeypatch, killed, moment)
    with pytest.raises(Killed):
        run(tmp_path)
    monkeypatch.undo()
    run(tmp_path, resume=True)
    assert final_bytes(tmp_path) == final_bytes(whole)
    assert round_lines.timeless(tmp_path) == round_lines.timeless(whole)


def test_a_run_that_an_earlier_release_began_goes_on(tmp_path, monkeypatch, whole):
    """Its record lacks the keys that are newer; what it has and we do not know stays."""
    _die(monkeypatch, 3, "before the commit")
    with pytest.raises(Killed):
        run(tmp_path)
    monkeypatch.undo()
    folder, newer = RunFolder(tmp_path), {"time", "version", "arrived", "truncation_of_change"}
    lines = [{"mood": "old", **line} for line in round_lines.read(tmp_path)]
    old = [{key: line[key] for key in line.keys() - newer} for line in lines]
    folder.record.write_text("".join(f"{json.dumps(line)}\n" for line in old))
    run(tmp_path, resume=True)
    assert final_bytes(tmp_path) == final_bytes(whole)
    assert round_lines.read(tmp_path)[:3] == old[:3]
    records = read_run(tmp_path).records
    assert [record.round for record in records] == list(range(ROUNDS + 1))
    assert [record.time is None for record in records] == [True] * 3 + [False] * 2
    assert [record.version for record in records] == [""] * 3 + [fedprompt.__version__] * 2


def _die(monkeypatch, killed, moment):
    """Make the server die in a round, at one of its moments."""

    def at(module, name, number, late=False):
        original = getattr(module, name)

        def deadly(*args, **kwargs):
            hit = number(args) == killed
            if hit and not late:
                raise Killed
            result = original(*args, **kwargs)
            if hit:
                raise Killed
            return result

        monkeypatch.setattr(module, name, deadly)

    if moment == "training":
        at(attempt, "merge", lambda args: args[5])
    elif moment == "before the line":
        at(RunFolder, "append", lambda args: args[1].round)
    else:
        at(loop, "save", lambda args: args[1].round, late=moment == "after")


@pytest.mark.parametrize("strategy", ["fedavg", "fedprox", "fedavgm", "fedadam", "fedyogi"])
def test_F21_every_strategy_resumes_with_its_state(tmp_path, strategy):
    run(tmp_path / "whole", strategy=strategy)
    run(tmp_path / "parts", strategy=strategy, rounds=2)
    run(tmp_path / "parts", strategy=strategy, resume=True)
    assert final_bytes(tmp_path / "parts") == final_bytes(tmp_path / "whole")


@pytest.mark.parametrize("rule", ["product", "factors"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_F21_every_rule_and_dtype_resumes(tmp_path, rule, dtype):
    run(tmp_path / "whole", rule=rule, dtype=dtype)
    run(tmp_path / "parts", rule=rule, dtype=dtype, rounds=2)
    run(tmp_path / "parts", rule=rule, dtype=dtype, resume=True)
    assert final_bytes(tmp_path / "parts") == final_bytes(tmp_path / "whole")


SCRIPT = """
import os, sys
from pathlib import Path
from server.rounds.local_grid import LocalGrid
from server.rounds.loop import Rounds
from tests.sites import client, config, start, task

def die(message, reply):
    if message.content["config"]["round"] == 3 and not Path(sys.argv[1], "died").exists():
        Path(sys.argv[1], "died").touch()
        os.kill(os.getpid(), 9)
    return reply

settings = {"rounds": 4, "fraction": 1.0, "strategy": "fedadam", "resume": True}
with LocalGrid(client(train={1: die}), 4, {}) as grid:
    Rounds(grid, task(start(rank=2)), config(sys.argv[1], **settings), 4).run()
"""


def test_F21_a_real_kill_9_ends_in_the_same_bytes(tmp_path):
    """The site runs in the server's process and kills it in the middle of round 3."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(root)}
    first = subprocess.run(command, cwd=root, env=environment, capture_output=True, check=False)
    assert first.returncode == -signal.SIGKILL
    assert round_lines.read(tmp_path)[-1]["round"] == 2
    subprocess.run(command, cwd=root, env=environment, capture_output=True, check=True)
    run(tmp_path / "whole", fraction=1.0)
    assert final_bytes(tmp_path) == final_bytes(tmp_path / "whole")


def test_F22_a_damaged_checkpoint_falls_back_to_the_previous_round(tmp_path, whole, caplog):
    run(tmp_path)
    path = tmp_path / "checkpoints" / f"round-{ROUNDS:05d}.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 4
    path.write_bytes(data)
    run(tmp_path, resume=True)
    assert f"round-{ROUNDS:05d}.safetensors is damaged" in caplog.text
    assert f"round-{ROUNDS - 1:05d}.safetensors, the last good checkpoint" in caplog.text
    assert final_bytes(tmp_path) == final_bytes(whole)
    assert round_lines.timeless(tmp_path) == round_lines.timeless(whole)


def test_F22_nothing_but_damage_refuses_and_changes_nothing(tmp_path):
    run(tmp_path, rounds=1)
    for path in (tmp_path / "checkpoints").iterdir():
        path.write_bytes(b"garbage")
    before = (tmp_path / "rounds.jsonl").read_bytes()
    with pytest.raises(CheckpointError, match="all checkpoints"):
        run(tmp_path, resume=True)
    assert (tmp_path / "rounds.jsonl").read_bytes() == before


def test_F22_another_runs_checkpoint_is_refused(tmp_path):
    run(tmp_path, rounds=1)
    with LocalGrid(client(), SITES, {}) as grid, pytest.raises(CheckpointError, match="belongs to"):
        Rounds(grid, task(start(rank=1)), config(tmp_path, resume=True), SITES).run()


def test_F23_a_full_disk_keeps_the_last_round(tmp_path, monkeypatch, whole):
    original = checkpoint.write_atomic

    def full(path, data):
        if path.name == "round-00002.safetensors":
            raise StorageError(f"{path} could not be written: {os.strerror(errno.ENOSPC)}")
        original(path, data)

    monkeypatch.setattr(checkpoint, "write_atomic", full)
    with pytest.raises(StorageError, match="No space left"):
        run(tmp_path)
    monkeypatch.undo()
    run(tmp_path, resume=True)
    assert final_bytes(tmp_path) == final_bytes(whole)


def test_a_fresh_run_does_not_overwrite_an_old_one_unasked(tmp_path, whole):
    run(tmp_path, rounds=2)
    before = round_lines.timeless(tmp_path)
    with pytest.raises(ConfigError, match=r"server\.overwrite=true"):
        run(tmp_path)
    assert round_lines.timeless(tmp_path) == before
    run(tmp_path, overwrite=True)
    assert round_lines.timeless(tmp_path) == round_lines.timeless(whole)


def test_resume_without_a_checkpoint_starts_afresh(tmp_path, whole):
    run(tmp_path, resume=True)
    assert final_bytes(tmp_path) == final_bytes(whole)


def test_resume_of_a_finished_run_changes_nothing(tmp_path, whole):
    run(tmp_path)
    run(tmp_path, resume=True)
    assert round_lines.timeless(tmp_path) == round_lines.timeless(whole)
