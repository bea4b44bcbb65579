"""Kill -9 anywhere, in processes of their own: the run ends in the same bytes (F21)."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.app.user_config import UserConfig

from client.app import app as client_app
from server.app import app as server_app
from server.rounds.local_grid import LocalGrid
from server.run_folder import run_status
from tests import round_lines
from tests.deployment import ROOT, deployment, wait

KILLS, ROUNDS = 20, 12

# Imports take seconds and a run takes less than one: so one process imports, and forks a server for
# each run. Lines in: folder, seconds until the kill (or "never"). Lines out: JSON.
ZYGOTE = """
import json, os, signal, sys, time
from server.rounds.local_grid import LocalGrid
from server.rounds.loop import Rounds
from tests.sites import client, config, start, task

rounds = int(sys.argv[1])

def serve(folder):
    settings = {"rounds": rounds, "fraction": 0.5, "strategy": "fedadam", "resume": True}
    with LocalGrid(client(), 4, {}) as grid:
        Rounds(grid, task(start(rank=2)), config(folder, **settings), 4).run()

for line in sys.stdin:
    folder, seconds = line.split()
    begun = time.monotonic()
    server = os.fork()
    if not server:
        os.setsid()
        try:
            serve(folder)
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if seconds != "never":
        time.sleep(float(seconds))
        os.kill(server, signal.SIGKILL)
    _, status = os.waitpid(server, 0)
    told = {"code": os.waitstatus_to_exitcode(status), "seconds": time.monotonic() - begun}
    print(json.dumps(told), flush=True)
"""


@pytest.fixture(scope="module")
def serve():
    """Run a server to its end, or until it is killed; return its exit code and the seconds."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", ZYGOTE, str(ROUNDS)], cwd=ROOT, env=environment, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as zygote:  # fmt: skip
        assert zygote.stdin
        assert zygote.stdout

        def run(folder: Path, seconds: float | str = "never") -> tuple[int, float]:
            zygote.stdin.write(f"{folder} {seconds}\n")
            zygote.stdin.flush()
            told = json.loads(zygote.stdout.readline())
            return told["code"], told["seconds"]

        yield run
        zygote.stdin.close()


@pytest.fixture(scope="module")
def whole(serve, tmp_path_factory):
    """Run once without a kill."""
    folder = tmp_path_factory.mktemp("whole")
    code, seconds = serve(folder)
    assert code == 0
    return folder, seconds


def final_bytes(folder):
    return (folder / "checkpoints" / f"round-{ROUNDS:05d}.safetensors").read_bytes()


def test_F21_a_server_killed_in_20_random_places(serve, whole, tmp_path):
    """Each of 20 runs is killed once, somewhere between its first and its last moment."""
    undisturbed, seconds = whole
    draw, reached = random.Random(21), []  # noqa: S311 (not for secrets)
    for number in range(5 * KILLS):
        folder = tmp_path / str(number)
        code, _ = serve(folder, draw.uniform(0, seconds))
        if code == 0:
            continue  # it was over before the kill
        assert code == -9
        lines = round_lines.read(folder)
        reached.append(lines[-1]["round"] if lines else -1)
        assert serve(folder)[0] == 0
        assert final_bytes(folder) == final_bytes(undisturbed)
        assert round_lines.timeless(folder) == round_lines.timeless(undisturbed)
        if len(reached) == KILLS:
            break
    assert len(reached) == KILLS
    assert len(set(reached)) > KILLS / 4, f"all kills came after rounds {reached}"


def test_F21_one_run_killed_again_and_again(serve, whole, tmp_path):
    """Killed in each of its lives, sooner or later it is done; nothing adds up on the way."""
    undisturbed, seconds = whole
    draw, killed = random.Random(22), 0  # noqa: S311
    while serve(tmp_path, draw.uniform(0.2, 0.6) * seconds)[0] == -9:
        killed += 1
        assert killed < 100, "a run that is killed often makes no progress"
    assert killed > 0
    assert final_bytes(tmp_path) == final_bytes(undisturbed)
    assert round_lines.timeless(tmp_path) == round_lines.timeless(undisturbed)


def simulated(live, folder):
    """Run the deployment's settings over copies of its sites in this process; return the record."""
    skipped = shutil.ignore_patterns("flower", "logs", "egress*", "contact.json", "*.lock")
    copies = [
        shutil.copytree(site.folder.path, folder / str(site.number), ignore=skipped)
        for site in live.sites
    ]

    def app(message: Message, context: Context) -> Message:
        place = UserConfig({"site-folder": str(copies[context.node_config["partition-id"]])})
        own = Context(context.run_id, context.node_id, place, context.state, context.run_config)
        return client_app(message, own)

    output = folder / "run"
    settings = live.folder.run_settings() | {"server.output": str(output), "server.sites": ""}
    with LocalGrid(app, len(copies), settings) as grid:
        server_app(grid=grid, context=Context(1, 0, {}, RecordDict(), settings))
    return output


@pytest.mark.slow
def test_F21_a_deployment_killed_in_each_of_its_parts_ends_in_the_prompt_of_a_simulation(
    tmp_path, monkeypatch
):
    """ServerApp, SuperLink, supervisor: each by kill -9, in the midst of a round."""
    settings = {"server.rounds": 4, "server.quorum": 1.0, "server.strategy": "fedadam"}
    with deployment(tmp_path / "live", settings) as live:
        for seed, name in enumerate(("north", "south")):
            live.site(name, seed).start()
        server = live.serve()
        for number, part in ((1, "flwr-serverapp"), (2, "server.deployment.superlink")):
            live.wait_round(number)
            killed = server.pid(part)
            os.kill(killed, signal.SIGKILL)
            assert server.process.poll() is None
            wait(lambda gone=killed: gone not in server.family(), f"process {killed} ends")
        live.wait_round(3)
        server.process.kill()
        assert server.result() == -signal.SIGKILL
        wait(lambda last=server: not last.family(), "the children of a killed server end")
        assert run_status.read(live.folder.run) is None
        server = live.serve()
        assert server.result() == 0, live.told()
        restarts = live.audit("restart")
        assert len(restarts) == 2, restarts
        monkeypatch.setenv("FEDPROMPT_CACHE", str(live.cache))
        output = simulated(live, tmp_path / "simulated")
        lines, wanted = live.lines(), round_lines.read(output)
        assert [line["round"] for line in lines] == list(range(5))
        for key in ("prompt", "arrived", "accepted", "loss"):
            assert [x.get(key) for x in lines] == [x.get(key) for x in wanted], key
        assert run_status.read(live.folder.run) == run_status.read(output)
