"""Every method in a whole run in this process: two rounds, three sites, both forms.

A method is one line in ``CASES``.
"""

from pathlib import Path

import numpy as np
import pytest
from flwr.app import Context, RecordDict

from client import site
from client.app import app as client
from fedprompt.artefact import Artefact
from fedprompt.backbone.clip import FrozenClip
from fedprompt.prompts.artefacts import from_artefact
from fedprompt.prompts.build import build_prompt
from fedprompt.settings.run_config import RunConfig, defaults
from server.app import app as server
from server.rounds import task_builder
from server.rounds.local_grid import LocalGrid
from tests import round_lines
from tests.pictures import image_folder

CLASSES = ("blue", "green", "red")
CASES = {
    "vpt": {"method": "vpt"},
    "ivlp": {"method": "ivlp"},
    "maple": {"method": "maple"},
    "maple, words that stay": {"method": "maple", "tokens": 2},
    "coop, name in front": {"method": "coop", "name_position": "front"},
    "coop, vectors of each class": {"method": "coop", "class_specific": True, "tokens": 2},
    "mudpt": {"method": "mudpt"},
    "mudpt, transformer maps": {"method": "mudpt", "maps": "transformer"},
    "mudpt, frozen maps": {"method": "mudpt", "freeze_maps": True},
    "sdpt": {"method": "sdpt"},
    "spt": {"method": "spt", "tokens": 4, "public": "PHOTOS"},
    "advpt": {"method": "advpt"},
    "kgcoop": {"method": "kgcoop"},
    "prograd": {"method": "prograd"},
    "promptsrc": {"method": "promptsrc"},
    "linear": {"method": "linear"},
    "fedclip": {"method": "fedclip"},
    "cocoop": {"method": "cocoop"},
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_folder(tmp_path_factory.mktemp("photos"), CLASSES, 8)


@pytest.fixture
def flat(clip: FrozenClip, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return a run's settings; the backbone is the tiny CLIP, at server and sites."""
    monkeypatch.setenv("FEDPROMPT_CACHE", str(tmp_path / "cache"))
    for module in (site, task_builder):
        monkeypatch.setattr(module, "shared_backbone", lambda config: clip)
    return defaults() | {
        "data.source": str(photos),
        "data.clients": 3,
        "data.partitioner": "iid",
        "fit.learning_rate": 0.05,
        "prompt.seed": 3,
        "server.rounds": 2,
        "server.output": str(tmp_path / "run"),
    }


@pytest.mark.parametrize("form", ["full", "lowrank"])
@pytest.mark.parametrize("case", CASES)
def test_two_rounds_of_three_sites(
    clip: FrozenClip, flat: dict, tmp_path: Path, case: str, form: str
) -> None:
    flat |= {f"prompt.{key}": value for key, value in CASES[case].items()} | {"prompt.form": form}
    if flat["prompt.public"]:
        flat["prompt.public"] = flat["data.source"]  # for once, what everyone may see
    with LocalGrid(client, 3, flat) as grid:
        server(grid=grid, context=Context(1, 0, {}, RecordDict(), flat))
    lines = round_lines.read(tmp_path / "run")
    assert [line["round"] for line in lines] == [0, 1, 2]
    assert all(line["accepted"] == [0, 1, 2] for line in lines[1:])
    assert all(line["verdicts"] == [] for line in lines[1:])
    assert 0 < lines[-1]["information_density"] <= 1

    artefact = Artefact.load(tmp_path / "run" / "artefact")
    config = RunConfig.parse(flat).prompt
    start = build_prompt(config, clip, sorted(CLASSES), flat["data.template"])
    assert artefact.metadata["trained"] == sorted(start.arrays())
    assert artefact.tensors.keys() == start.arrays().keys() | start.frozen_arrays().keys()
    moved = {name: np.abs(artefact.tensors[name] - a).max() for name, a in start.arrays().items()}
    assert min(moved.values()) > 0  # nothing is trained that nothing reads
    for name, array in start.frozen_arrays().items():
        assert np.array_equal(artefact.tensors[name], array)
    found = from_artefact(artefact, clip)
    assert found.describe() == start.describe()
    assert found.describe()["form"] == form
