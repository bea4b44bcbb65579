"""ADAPT in whole runs in this process: sites of two domains, what they send, and a resumption."""

from pathlib import Path

import numpy as np
import pytest
from flwr.app import Context, RecordDict

from client import site
from client.app import app as client
from fedprompt.artefact import Artefact
from fedprompt.backbone.clip import FrozenClip
from fedprompt.data.load import load
from fedprompt.errors import QuorumError
from fedprompt.prompts.artefacts import from_artefact
from fedprompt.settings.run_config import RunConfig, defaults
from fedprompt.wire import ARRAYS, CONFIG
from server.app import app as server
from server.rounds import task_builder
from server.rounds.local_grid import LocalGrid
from tests import round_lines
from tests.pictures import image_folder

CLASSES, SITES = ("blue", "green", "red"), 4
DOMAINS = ("ink", "photo")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """List the same classes drawn by two hands; their images lie in one folder each."""
    root = tmp_path_factory.mktemp("drawn")
    lines = ["path,label,domain"]
    for number, domain in enumerate(DOMAINS):
        image_folder(root / domain, CLASSES, 8, size=32 + 8 * number)
        lines += [f"{domain}/{name}/{i}.png,{name},{domain}" for name in CLASSES for i in range(8)]
    (root / "images.csv").write_text("\n".join(lines))
    return root / "images.csv"


@pytest.fixture
def flat(clip: FrozenClip, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return a run's settings; the backbone is the tiny CLIP, at server and sites."""
    monkeypatch.setenv("FEDPROMPT_CACHE", str(tmp_path / "cache"))
    for module in (site, task_builder):
        monkeypatch.setattr(module, "shared_backbone", lambda config: clip)
    return defaults() | {
        "prompt.method": "adapt",
        "prompt.seed": 3,
        "data.source": str(manifest),
        "data.clients": SITES,
        "data.partitioner": "domain",
        "fit.learning_rate": 0.05,
        "server.rounds": 2,
        "server.output": str(tmp_path / "run"),
    }


def run(flat: dict) -> list[dict]:
    with LocalGrid(client, SITES, flat) as grid:
        server(grid=grid, context=Context(1, 0, {}, RecordDict(), flat))
    return round_lines.read(Path(flat["server.output"]))


@pytest.mark.parametrize("form", ["full", "lowrank"])
def test_two_rounds_of_two_domains(clip: FrozenClip, flat: dict, tmp_path: Path, form: str) -> None:
    lines = run(flat | {"prompt.form": form})
    assert [line["round"] for line in lines] == [0, 1, 2]
    assert lines[0]["domains"] == {"0": "ink", "1": "photo", "2": "ink", "3": "photo"}
    assert all(line["accepted"] == [0, 1, 2, 3] and not line["verdicts"] for line in lines[1:])

    artefact = Artefact.load(tmp_path / "run" / "artefact")
    assert artefact.metadata["domains"] == "ink, photo"
    found = from_artefact(artefact, clip)
    trained = found.arrays()
    start = Artefact.load(tmp_path / "run" / "artefact").tensors
    matrices = {"text.0", "text.1", "visual"}
    assert {name.removesuffix(".A").removesuffix(".B") for name in trained} == matrices
    first, second = (
        np.concatenate([a.ravel() for n, a in trained.items() if n.startswith(f"text.{i}")])
        for i in range(2)
    )
    assert np.abs(first - second).max() > 1e-3  # each domain went its own way
    assert all(np.array_equal(start[name], array) for name, array in trained.items())
    images = load(RunConfig.parse(flat).data)[0]
    assert images.domain_names == DOMAINS


def test_a_site_sends_its_domain_and_a_foreign_one_is_refused(flat: dict) -> None:
    sent: dict[int, set[str]] = {}

    def watched(message, context):
        """Answer, and note what leaves; site 3 sends another domain's prompt in round 1."""
        answer = client(message, context)
        if message.metadata.message_type != "train":
            return answer
        number = int(context.node_config["partition-id"])
        arrays = answer.content.array_records[ARRAYS]
        sent[number] = set(arrays)
        if number == 3 and message.content.config_records[CONFIG]["round"] == 1:
            arrays["text.0"] = arrays.pop("text.1")
        return answer

    with LocalGrid(watched, SITES, flat) as grid:
        server(grid=grid, context=Context(1, 0, {}, RecordDict(), flat))
    lines = round_lines.read(Path(flat["server.output"]))
    assert sent[0] == sent[2] == {"text.0", "visual"}
    assert sent[1] == sent[3] == {"text.1", "visual"}
    assert lines[1]["accepted"] == [0, 1, 2]
    assert [verdict["site"] for verdict in lines[1]["verdicts"]] == [3]
    assert lines[2]["accepted"] == [0, 1, 2, 3]


@pytest.mark.parametrize("form", ["full", "lowrank"])
def test_resumed_ends_in_the_same_bytes(flat: dict, tmp_path: Path, form: str) -> None:
    flat |= {"prompt.form": form}
    run(flat | {"server.rounds": 3, "server.output": str(tmp_path / "whole")})
    folder = str(tmp_path / "two")
    run(flat | {"server.rounds": 3, "server.output": folder})
    for path in (tmp_path / "two" / "checkpoints").glob("round-0000[23]*"):
        path.unlink()
    run(flat | {"server.rounds": 3, "server.output": folder, "server.resume": True})
    one, other = (Artefact.load(tmp_path / name / "artefact") for name in ("whole", "two"))
    assert one.tensors.keys() == other.tensors.keys()
    assert all(np.array_equal(a, other.tensors[name]) for name, a in one.tensors.items())


def test_a_site_of_several_domains_is_not_admitted(flat: dict) -> None:
    with pytest.raises(QuorumError, match=r"images are of ink, photo.*data\.partitioner = domain"):
        run(flat | {"data.partitioner": "iid", "server.join_deadline": 60.0})
