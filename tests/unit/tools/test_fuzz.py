import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedprompt.errors import DataError
from tools.fuzz import meter
from tools.fuzz.child import Board, last_input
from tools.fuzz.meter import Meter
from tools.fuzz.mutate import inputs

ROOT = Path(__file__).parents[3]


def refuse(data: bytes) -> None:
    raise DataError("as it should")


def crash(data: bytes) -> None:
    if data == b"bad":
        raise KeyError("a finding")


def test_the_error_tree_is_no_finding(tmp_path: Path) -> None:
    found = Meter(refuse, 100, tmp_path)
    for _ in range(10):
        found.run(b"x")
    assert found.report()["crashes"] == 0
    assert found.report()["refused"] == 10
    assert not list(tmp_path.iterdir())


def test_a_crash_is_counted_and_its_input_is_kept(tmp_path: Path) -> None:
    found = Meter(crash, 100, tmp_path)
    for data in (b"good", b"bad", b"bad", b"bad", b"bad"):
        found.run(data)
    report = found.report()
    assert report["inputs"] == 5
    assert report["crashes"] == 4
    (kind,) = report["kinds"]
    assert kind.startswith("KeyError at test_fuzz.py:")
    kept = sorted(tmp_path.glob("*.bin"))
    assert [path.read_bytes() for path in kept] == [b"bad"] * 3
    assert "a finding" in kept[0].with_suffix(".txt").read_text()


def test_a_slow_input_is_a_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter, "HANG", 0.02)

    def spin(data: bytes) -> None:
        end = time.process_time() + 0.05
        while data == b"slow" and time.process_time() < end:
            pass

    found = Meter(spin, 100, tmp_path)
    for data in (b"quick", b"slow"):
        found.run(data)
    assert found.report()["hangs"] == 1


@pytest.mark.parametrize("size", [1000, 10_000_000])
def test_an_allocation_over_the_limit_is_counted(tmp_path: Path, size: int) -> None:
    found = Meter(lambda data: bytearray(size).clear(), 100_000, tmp_path)
    for _ in range(meter.SAMPLE):
        found.run(b"x")
    report = found.report()
    assert report["over_limit"] == (size > 400_000)
    assert size <= report["largest_allocation"] < size + 20_000


def test_mutation_starts_with_the_seeds_and_repeats_itself() -> None:
    first, second = (list(itertools.islice(inputs([b"abc", b"de"], 64, 7), 200)) for _ in "ab")
    assert first == second
    assert first[:2] == [b"abc", b"de"]
    assert len(set(first)) > 100
    assert max(map(len, first)) <= 64


def test_the_board_survives_its_process(tmp_path: Path) -> None:
    Board(tmp_path, 64).show(12, b"the last one")
    assert last_input(tmp_path) == (12, b"the last one")
    assert last_input(tmp_path / "nothing") == (0, b"")


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["mutate", "atheris"])
def test_the_command_prints_one_line(tmp_path: Path, engine: str) -> None:
    if engine == "atheris":
        pytest.importorskip("atheris")
    command = [sys.executable, "-m", "tools.fuzz", "tensors", "--inputs", "3000"]
    command += ["--engine", engine, "--findings", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, check=True)
    found = json.loads(done.stdout)
    assert (found["target"], found["engine"], found["inputs"]) == ("tensors", engine, 3000)
    assert found["crashes"] == found["hangs"] == found["over_limit"] == 0
    assert 0 < found["largest_allocation"] < found["limit"]
