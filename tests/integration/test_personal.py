"""Sites with prompts of their own, in whole runs: what travels, and that a kill changes no byte."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, RecordDict
from flwr.common.serde import message_from_proto
from flwr.proto.message_pb2 import Message

from client.app import app as client
from client.deployment.egress_log import EgressLog
from fedprompt import tensor_file
from fedprompt.artefact import Artefact
from fedprompt.backbone.load import shared_backbone
from fedprompt.identity import sha256_bytes
from fedprompt.settings.backbone import BackboneConfig
from fedprompt.settings.run_config import RunConfig, defaults
from fedprompt.settings.section import Flat
from fedprompt.wire import ARRAYS, CONFIG, METRICS, to_array_record
from server.app import app as server
from server.rounds import loop
from server.rounds.local_grid import LocalGrid
from server.rounds.task_builder import Tuning
from tests import round_lines
from tests.enrolled import invitation, rule, send, site
from tests.pictures import image_folder

SITES, ROUNDS = 3, 3
CLASSES = ("blue", "green", "red")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_folder(tmp_path_factory.mktemp("photos"), CLASSES, 12)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEDPROMPT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def settings(photos: Path, folder: Path, **changes: object) -> Flat:
    own = {
        "backbone.name": "embedded-cnn",
        "data.source": str(photos),
        "data.clients": SITES,
        "data.partitioner": "iid",
        "fit.learning_rate": 0.1,
        "prompt.personal": "both",
        "server.rounds": ROUNDS,
        "server.output": str(folder),
    }
    return defaults() | own | {key.replace("__", "."): value for key, value in changes.items()}


class Tapped(LocalGrid):
    """Keep what the sites sent."""

    up: list[bytes]

    def _deliver(self, data: bytes, expiry: float) -> bytes:
        found = super()._deliver(data, expiry)
        self.up.append(found)
        return found


def run(flat: Flat) -> list[bytes]:
    """Run a federation and return the sites' messages."""
    with Tapped(client, SITES, flat, 1) as grid:
        grid.up = []
        server(grid=grid, context=Context(1, 0, {}, RecordDict(), flat))
        return grid.up


def ending(folder: Path, cache: Path) -> tuple[str, dict[str, bytes]]:
    """Return the prompt's hash, and the sites' own prompts of the last round."""
    last = sorted((cache / "local").rglob(f"round-{ROUNDS:05d}-*"))
    assert len(last) == SITES
    return Artefact.load(folder / "artefact").sha256, {p.parent.name: p.read_bytes() for p in last}


def trained(up: list[bytes]) -> list[dict[str, bytes]]:
    """Return the arrays of every answer to a train message."""
    messages = [message_from_proto(Message.FromString(data)) for data in up]
    return [
        {name: array.data for name, array in message.content.array_records[ARRAYS].items()}
        for message in messages
        if message.metadata.message_type == "train"
    ]


@pytest.mark.parametrize(
    ("method", "sent", "left"),
    [
        ("dip", {"ctx.B"}, {"ctx"}),
        ("dip-fixed", {"ctx.A", "ctx.B"}, {"ctx.A", "ctx.B", "ctx.start"}),
    ],
)
def test_only_the_shared_prompt_leaves_the_sites(
    photos: Path, cache: Path, tmp_path: Path, method: str, sent: set[str], left: set[str]
) -> None:
    # from the same words both would take the same first steps
    drawn = {"prompt__init": "random", "prompt__tokens": 4}
    flat = settings(photos, tmp_path / "run", prompt__method=method, **drawn)
    up, start = run(flat), Tuning(RunConfig.parse(flat)).prompt.arrays()
    replies = trained(up)
    assert len(replies) == SITES * ROUNDS
    assert all(set(arrays) == sent for arrays in replies)
    everything = b"".join(up)
    for path in (cache / "local").rglob("*.safetensors"):
        for name, array in tensor_file.parse(path.read_bytes()).items():
            if not np.array_equal(array, start[name]):  # a fixed A begins alike everywhere
                assert array.tobytes()[:16] not in everything
    artefact = Artefact.load(tmp_path / "run" / "artefact")
    assert set(artefact.tensors) == left
    assert artefact.metadata["sent"] == sum(len(data) // 4 for data in replies[0].values())
    assert artefact.metadata["personal"] == "both"
    last = round_lines.read(tmp_path / "run")[-1]
    assert last["accepted"] == list(range(SITES))


@pytest.mark.parametrize("committed", [False, True])
def test_f21_a_killed_and_resumed_run_ends_in_the_same_bytes(
    photos: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    """The kill comes before round 2 is committed, when its sites have trained, or right after."""
    flat = settings(photos, tmp_path / "whole", server__fraction=0.7)  # so that sites skip rounds
    run(flat)
    last = [line["asked"] for line in round_lines.read(tmp_path / "whole")[1:]]
    assert any(len(asked) < SITES for asked in last)
    whole = Artefact.load(tmp_path / "whole" / "artefact").sha256, states(cache)
    original = loop.save

    def killed(folder: Path, state: loop.Checkpoint) -> None:
        if state.round == 2 and not committed:
            raise KeyboardInterrupt
        original(folder, state)
        if state.round == 2:
            raise KeyboardInterrupt

    flat["server.output"] = str(tmp_path / "killed")
    with monkeypatch.context() as patch:
        patch.setattr(loop, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            run(flat)
    run(flat | {"server.resume": True})
    assert (Artefact.load(tmp_path / "killed" / "artefact").sha256, states(cache)) == whole


def states(cache: Path) -> dict[str, bytes]:
    root = cache / "local"
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*.safetensors")}


def test_local_sites_send_nothing_and_the_artefact_is_the_start(
    photos: Path, cache: Path, tmp_path: Path
) -> None:
    flat = settings(photos, tmp_path, prompt__personal="local", fit__epochs=3)
    assert trained(run(flat)) == [{}] * (SITES * ROUNDS)
    lines = round_lines.read(tmp_path)
    assert {line["prompt"] for line in lines} == {lines[0]["prompt"]}
    reasons = {tuple(v["reasons"]) for line in lines[1:] for v in line["verdicts"]}
    assert reasons == {("abstained",)}
    assert lines[-1]["accepted"] == list(range(SITES))
    assert lines[-1]["nll"] < lines[0]["nll"]  # what is scored did learn
    start = Tuning(RunConfig.parse(flat)).prompt.arrays()
    found = Artefact.load(tmp_path / "artefact")
    assert all(np.array_equal(found.tensors[name], array) for name, array in start.items())
    assert (found.metadata["personal"], found.metadata["sent"]) == ("local", 0)
    assert len(states(cache)) == SITES * ROUNDS


@pytest.mark.parametrize(
    ("method", "personal", "names"),
    [
        ("dip", "both", ["ctx.B"]),
        ("dip", "local", []),
        ("dip-fixed", "both", ["ctx.A", "ctx.B"]),
    ],
)
def test_a_deployed_sites_log_of_what_left_has_the_shared_names_only(
    photos: Path, cache: Path, tmp_path: Path, method: str, personal: str, names: list[str]
) -> None:
    clip = shared_backbone(BackboneConfig(name="embedded-cnn"))
    folder = site(tmp_path / "north", photos, invitation(CLASSES, clip, method=method))
    rule(folder, "min_sites", "1")
    flat = settings(photos, tmp_path, prompt__personal=personal, prompt__method=method)
    start = Tuning(RunConfig.parse(flat)).prompt.arrays()
    arrays = to_array_record(start, "float32")
    asked = {"run": "abc", "round": 1, "seed": 0, "mu": 0.0, "sites": 5}
    content = RecordDict({ARRAYS: arrays, CONFIG: ConfigRecord(asked)})
    reply = send(folder, "train", content, flat)
    assert not reply.has_error(), reply.error
    assert list(reply.content.array_records[ARRAYS]) == names
    assert (reply.content.metric_records[METRICS]["num-examples"] > 0) == bool(names)
    (line,) = EgressLog(folder.egress).verify()[0]
    assert [array["name"] for array in line.entry["arrays"]] == names
    (own,) = (folder.path / "local").rglob("*.safetensors")
    left = {array["sha256"] for array in line.entry["arrays"]}
    own_arrays = tensor_file.parse(own.read_bytes())
    tuned = [a for name, a in own_arrays.items() if not np.array_equal(a, start[name])]
    assert tuned  # a fixed A begins alike everywhere, and moves from the second step on
    assert left.isdisjoint(sha256_bytes(array.tobytes()) for array in tuned)
    assert not (cache / "local").exists()


@pytest.mark.slow
def test_ray_ends_in_the_same_bytes(
    photos: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's workers take any site in any round: each finds the site's own prompt on the disk."""
    flat = settings(photos, tmp_path / "local")
    run(flat)
    expected = ending(tmp_path / "local", cache)
    monkeypatch.setenv("FEDPROMPT_CACHE", str(tmp_path / "other"))
    flat["server.output"] = str(tmp_path / "ray")
    given = [f"{key}={json.dumps(value)}" for key, value in flat.items() if value != ""]
    sets = [part for pair in given for part in ("--set", pair)]
    command = [sys.executable, "-c", "from fedprompt.cli import main; main()"]
    command += ["simulate", "--engine", "ray", "--json", *sets]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert ending(tmp_path / "ray", tmp_path / "other") == expected
