"""SIGTERM at any moment: nothing torn, nobody left behind, and resumed in the same bytes (F34)."""

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from server.run_folder import checkpoint
from tests import round_lines

ROOT = Path(__file__).parents[2]
PATIENCE = 600  # seconds until something counts as hung
MARK = "FEDPROMPT_TEST_MARK"  # tells our processes from others', children's children too


class Started:
    """A process in an environment of its own, whose descendants can be found."""

    def __init__(self, *arguments, **environment):
        self.mark = uuid.uuid4().hex
        own = {MARK: self.mark, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT, env=os.environ | own, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def end(self, number=None):
        """Send a signal, if any, and return exit code, output and errors."""
        if number:
            self.process.send_signal(number)
        try:
            out, err = self.process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        return self.process.returncode, out, err

    def left(self):
        """Return what still runs of it."""
        needle = f"{MARK}={self.mark}".encode()
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                alive = needle in path.read_bytes()  # empty for a zombie
                command = (path.parent / "cmdline").read_bytes() if alive else b""
            except OSError:
                continue
            if alive:
                found.append(command.replace(b"\0", b" ").decode())
        return found


def wait(happened):
    end = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.02)


def assert_whole(folder):
    """Assert that what a run left is what a round committed."""
    checkpoints = sorted((folder / "checkpoints").glob("*.safetensors"))
    assert [checkpoint.decode(path).round for path in checkpoints]
    assert list(folder.rglob(".*")) == []  # no half-written file


def final_bytes(folder, rounds):
    return (folder / "checkpoints" / f"round-{rounds:05d}.safetensors").read_bytes()


# A verb of the command line over toy sites; the first run is held in round 3 by a site at work.
SCRIPT = """
import sys, time
from pathlib import Path
from fedprompt import cli, command_line
from server.rounds.local_grid import LocalGrid
from server.rounds.loop import Rounds
from tests.sites import client, config, start, task

folder, work, handlers = Path(sys.argv[1]), sys.argv[2], sys.argv[3]

def held(message, reply):
    if message.content["config"]["round"] == 3 and not (folder / "held").exists():
        (folder / "held").touch()
        if work == "sleep":
            time.sleep(600)
        import torch
        matrix = torch.randn(300, 300)
        while True:
            matrix @ matrix
    return reply

def verb():
    settings = {"rounds": 4, "strategy": "fedadam", "resume": True, "deadline": 600.0}
    with LocalGrid(client(train={1: held}), 4, {}) as grid:
        Rounds(grid, task(start(rank=2)), config(folder, **settings), 4).run()

if handlers == "flower":  # as flwr-serverapp does before it runs a ServerApp
    from flwr.supercore.exit.signal_handler import register_signal_handlers
    from flwr.supercore.telemetry import EventType
    register_signal_handlers(event_type=EventType.FLWR_SERVERAPP_RUN_LEAVE)
    verb()
else:
    cli.COMMANDS["verb"] = ("tests:verb", "Do it.")
    command_line.resolve = lambda _: verb
    sys.argv = ["fedprompt", "verb"]
    cli.main()
"""


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """Run the toy to its end without interruption."""
    folder = tmp_path_factory.mktemp("toy")
    (folder / "held").touch()
    code, _, err = Started("-c", SCRIPT, str(folder), "sleep", "own").end()
    assert code == 0, err
    return final_bytes(folder, 4)


@pytest.mark.parametrize(
    ("work", "handlers", "expected"),
    [("sleep", "own", 143), ("torch", "own", 143), ("sleep", "flower", 0)],
)
def test_F34_sigterm_while_a_site_works(tmp_path, toy, work, handlers, expected):
    """Our command says 143; a ServerApp under Flower's own handlers leaves as Flower has it."""
    run = Started("-c", SCRIPT, str(tmp_path), work, handlers)
    wait((tmp_path / "held").exists)
    code, _, err = run.end(signal.SIGTERM)
    assert (code, "Traceback" in err) == (expected, False), err
    assert ("fedprompt: terminated" in err) == (handlers == "own")
    assert run.left() == []
    assert_whole(tmp_path)
    assert round_lines.read(tmp_path)[-1]["round"] == 2
    again, _, err = Started("-c", SCRIPT, str(tmp_path), work, "own").end()
    assert again == 0, err
    assert final_bytes(tmp_path, 4) == toy


HUNG = """
import sys, time
from flwr.app import Message, RecordDict
from fedprompt import cli, command_line
from fedprompt.errors import DataError
from server.rounds.local_grid import LocalGrid

begun = []
def site(message, context):
    begun.append(message)
    time.sleep(600)

def verb():
    with LocalGrid(site, 1, {}) as grid:
        grid.push_messages([Message(RecordDict(), 1000, "query", ttl=600.0)])
        while not begun:
            time.sleep(0.01)
        if kind != "fine":
            raise DataError("the images are gone")

kind, sys.argv = sys.argv[1], ["fedprompt", "verb"]
if kind == "library":
    verb()
cli.COMMANDS["verb"] = ("tests:verb", "Do it.")
command_line.resolve = lambda _: verb
cli.main()
"""


@pytest.mark.parametrize(("kind", "expected"), [("command", 3), ("fine", 0), ("library", 1)])
def test_F34_a_site_that_hangs_keeps_no_process_alive(kind, expected):
    """Neither after an error nor after a run that reached its quorum without the site."""
    code, _, err = Started("-c", HUNG, kind).end()
    assert code == expected, err
    assert ("the images are gone" in err) == (kind != "fine")


def test_F34_sigterm_before_anything_is_done(tmp_path):
    """While the command still imports torch and waits for its images."""
    code = "from fedprompt.cli import main; print('up', flush=True); main()"
    run = Started("-c", code, "simulate", "--output", str(tmp_path / "run"))
    assert run.process.stdout.readline() == "up\n"
    time.sleep(1)
    assert run.end(signal.SIGTERM)[0] == 143
    assert run.left() == []
    assert not (tmp_path / "run" / "artefact").exists()


# A verb that computes in C for ever: Python's handlers cannot run
IN_C = """
import ctypes, sys, threading
from fedprompt import cli, command_line

def locked():
    \"\"\"Wait for a lock that is never let go, in the C library.\"\"\"
    library, lock = ctypes.CDLL(None), ctypes.create_string_buffer(64)
    library.pthread_mutex_lock(lock)
    library.pthread_mutex_lock(lock)

def python():
    print("begins", flush=True)
    while True:
        pass

cli.COMMANDS["verb"] = ("tests:verb", "Do it.")
verb = globals()[sys.argv.pop()]
command_line.resolve = lambda _: verb
sys.argv = ["fedprompt", "verb"]
cli.main()
"""


def system_call(process):
    """Return the number of the system call that a process's main thread waits in; "" if none."""
    return Path(f"/proc/{process.pid}/syscall").read_text().split()[0]


def seconds_of_work(process):
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_until_in_c(run, work):
    if work == "locked":
        futex = {"x86_64": "202", "aarch64": "98"}[os.uname().machine]
        wait(lambda: system_call(run.process) == futex)
        return
    assert run.process.stdout.readline() == "begins\n"
    begun = seconds_of_work(run.process)
    wait(lambda: seconds_of_work(run.process) > begun + 0.5)


@pytest.mark.parametrize(
    ("number", "code", "told"),
    [
        (signal.SIGTERM, 143, "fedprompt: terminated"),
        (signal.SIGINT, 130, "fedprompt: interrupted"),
    ],
)
@pytest.mark.parametrize("work", ["locked", "python"])
def test_F34_a_signal_ends_a_command_that_computes_in_c(work, number, code, told):
    run = Started("-c", IN_C, work)
    wait_until_in_c(run, work)
    found, _, err = run.end(number)
    assert found == code, err
    assert told in err
    assert "Traceback" not in err


ROUNDS = 12


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for i, name in enumerate(("red", "green", "blue")):
        (root / name).mkdir()
        for j in range(12):
            pixels = rng.integers(0, 90, (32, 32, 3), dtype=np.uint8)
            pixels[..., i] += 120
            Image.fromarray(pixels).save(root / name / f"{j}.png")
    return root


@pytest.fixture(scope="module")
def simulate(images, tmp_path_factory):
    """Start `fedprompt simulate` over three small sites."""
    cache = str(tmp_path_factory.mktemp("cache"))

    def start(folder, *options):
        settings = {
            "backbone.name": "embedded-cnn", "data.source": str(images), "data.clients": 3,
            "data.partitioner": "iid", "server.rounds": ROUNDS, "prompt.rank": 2,
        }  # fmt: skip
        sets = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        code = "from fedprompt.cli import main; main()"
        command = ("-c", code, "simulate", "--output", str(folder), *sets, *options)
        return Started(*command, FEDPROMPT_CACHE=cache)

    return start


@pytest.fixture(scope="module")
def whole(simulate, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    code, _, err = simulate(folder).end()
    assert code == 0, err
    return final_bytes(folder, ROUNDS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "number", "expected"),
    [
        ("local", signal.SIGTERM, 143),
        ("ray", signal.SIGTERM, 143),
        ("ray", signal.SIGKILL, -signal.SIGKILL),  # Flower's SuperLink outlived its parent
    ],
)
def test_F34_a_simulation_that_is_ended(simulate, whole, tmp_path, engine, number, expected):
    run = simulate(tmp_path, "--engine", engine)
    wait(lambda: run.process.poll() or len(round_lines.read(tmp_path)) > 2)
    code, _, err = run.end(number)
    assert code == expected, err
    wait(lambda: run.left() == [])
    assert_whole(tmp_path)
    assert round_lines.read(tmp_path)[-1]["round"] < ROUNDS
    code, _, err = simulate(tmp_path, "--resume").end()
    assert code == 0, err
    assert final_bytes(tmp_path, ROUNDS) == whole
