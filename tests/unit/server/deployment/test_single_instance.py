import os
import subprocess
import sys

import pytest

from fedprompt.errors import FedpromptError
from fedprompt.files.file_lock import is_locked
from server.deployment import single_instance


@pytest.fixture
def path(tmp_path):
    return tmp_path / "server.lock"


def child(file) -> "subprocess.Popen[bytes]":
    """Start a process that lives until it is killed, with the lock as its standard input."""
    code = "import time; print('up', flush=True); time.sleep(600)"
    started = subprocess.Popen([sys.executable, "-c", code], stdin=file, stdout=subprocess.PIPE)
    assert started.stdout.readline() == b"up\n"
    return started


def end(process) -> None:
    process.kill()
    process.wait()
    process.stdout.close()


def test_one_server_at_a_time_and_the_first_is_named(path):
    with (
        single_instance.exclusive(path),
        pytest.raises(FedpromptError, match=f"runs in .* already .process {os.getpid()}"),
        single_instance.exclusive(path),
    ):
        pass
    with single_instance.exclusive(path):
        pass


def test_the_lock_tells_whether_a_server_runs(path):
    assert not is_locked(path)
    with single_instance.exclusive(path):
        assert is_locked(path)
    assert not is_locked(path)


def test_the_lock_is_held_as_long_as_a_child_lives(path):
    with single_instance.exclusive(path) as file:
        left = child(file)
    try:
        assert is_locked(path)
        assert single_instance.children(path) == [left.pid]
    finally:
        end(left)
    assert not is_locked(path)
    assert single_instance.children(path) == []


def dead() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_the_children_of_a_dead_server_are_ended_by_the_next_one(path, monkeypatch):
    monkeypatch.setattr(single_instance, "_TIMEOUT", 1.0)
    with single_instance.exclusive(path) as file:
        left = child(file)
    path.write_text(f"{dead()}\n")
    try:
        with single_instance.exclusive(path):
            assert single_instance.children(path) == []
        assert left.wait(60) == -9
    finally:
        end(left)


def test_children_that_end_by_themselves_are_not_killed(path):
    with single_instance.exclusive(path) as file:
        brief = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(0.5)"], stdin=file)
        single_instance.end_children(path, 20)
    assert brief.wait(60) == 0


def test_a_lock_file_that_names_nobody_is_no_hindrance(path):
    path.write_text("nonsense")
    with single_instance.exclusive(path):
        assert path.read_text() == f"{os.getpid()}\n"
