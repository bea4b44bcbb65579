"""Where a self-prompt's start comes from in a federation, and what the sites need for it."""

from pathlib import Path

import numpy as np
import pytest
from flwr.app import Context, RecordDict

from client import app as client_app
from client import site
from client.app import app as client
from fedprompt.backbone.clip import FrozenClip
from fedprompt.errors import ConfigError, PromptError, QuorumError
from fedprompt.prompt_state import PromptState
from fedprompt.prompts import spt
from fedprompt.prompts.build import build_prompt
from fedprompt.settings.run_config import RunConfig, defaults
from fedprompt.settings.section import Flat
from server.app import app as server
from server.rounds import task_builder
from server.rounds.local_grid import LocalGrid
from server.run_folder.checkpoint import decode
from tests import round_lines
from tests.pictures import image_folder

CLASSES = ("blue", "green", "red")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_folder(tmp_path_factory.mktemp("photos"), CLASSES, 8)


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_folder(tmp_path_factory.mktemp("public"), ("cat", "dog"), 5, size=40)


@pytest.fixture(autouse=True)
def loaded(clip: FrozenClip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDPROMPT_CACHE", str(tmp_path / "cache"))
    for module in (site, task_builder):
        monkeypatch.setattr(module, "shared_backbone", lambda config: clip)


@pytest.fixture
def flat(photos: Path, tmp_path: Path) -> Flat:
    return defaults() | {
        "data.source": str(photos),
        "data.clients": 3,
        "data.partitioner": "iid",
        "prompt.method": "spt",
        "prompt.tokens": 4,
        "server.rounds": 1,
        "server.output": str(tmp_path / "run"),
    }


def run(
    flat: Flat, at_sites: Flat | None = None, workers: int = 1
) -> tuple[PromptState, list[dict]]:
    """Run a federation and return round 0's arrays and the record."""
    client_app._known_site.cache_clear()
    spt._prototypes.cache_clear()
    with LocalGrid(client, 3, at_sites or flat, workers) as grid:
        server(grid=grid, context=Context(1, 0, {}, RecordDict(), flat))
    folder = Path(str(flat["server.output"]))
    first = decode(folder / "checkpoints" / "round-00000.safetensors")
    return first.arrays, round_lines.read(folder)


def own(flat: Flat, clip: FrozenClip) -> PromptState:
    """Return the start that the settings give a server."""
    config = RunConfig.parse(flat).prompt
    return build_prompt(config, clip, CLASSES, str(flat["data.template"])).arrays()


def test_the_server_sends_its_start_to_sites_without_public_images(
    clip: FrozenClip, flat: Flat, public: Path
) -> None:
    flat |= {"prompt.public": str(public)}
    arrays, lines = run(flat, flat | {"prompt.public": ""})
    expected = own(flat, clip)
    assert all(np.array_equal(arrays[name], expected[name]) for name in expected)
    assert np.std(arrays["visual.2"]) > 0.1  # tokens, not N(0, 0.02)
    assert lines[1]["accepted"] == [0, 1, 2]
    assert lines[1]["verdicts"] == []


def test_in_form_lowrank_sites_without_the_servers_images_are_told_so(
    flat: Flat, public: Path, photos: Path
) -> None:
    flat |= {"prompt.public": str(public), "prompt.form": "lowrank"}
    for other in ("", str(photos)):
        with pytest.raises(QuorumError, match=r"start is .* needs the images of the server's "):
            run(flat | {"server.overwrite": True}, flat | {"prompt.public": other})
    _, lines = run(flat | {"server.overwrite": True})
    assert lines[1]["accepted"] == [0, 1, 2]


def test_the_sites_noised_centres_make_the_start(
    clip: FrozenClip, flat: Flat, tmp_path: Path
) -> None:
    flat |= {"prompt.start_noise": 0.02}
    arrays, lines = run(flat)
    assert lines[0]["start_sites"] == [0, 1, 2]
    assert lines[0]["start_verdicts"] == []
    assert lines[1]["accepted"] == [0, 1, 2]
    assert {name: array.shape for name, array in arrays.items()} == {
        f"visual.{i}": (4, 48) for i in range(3)
    }
    assert np.std(arrays["visual.2"]) > 0.1
    again, _ = run(flat | {"server.output": str(tmp_path / "again")}, workers=3)
    assert all(arrays[name].tobytes() == again[name].tobytes() for name in arrays)
    noisier = {"prompt.start_noise": 0.5, "server.output": str(tmp_path / "noisier")}
    other, _ = run(flat | noisier)
    assert np.std(other["visual.2"]) > 2 * np.std(arrays["visual.2"])


def test_other_methods_ask_no_site(flat: Flat) -> None:
    _, lines = run(flat | {"prompt.method": "vpt"})
    assert "start_sites" not in lines[0]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, "prompt.public is empty"),
        ({"prompt.start_noise": 0.1, "prompt.form": "lowrank"}, "does not travel there"),
        (
            {"prompt.start_noise": 0.1, "prompt.method": "coop"},
            "is a setting of spt; prompt.method = coop takes none",
        ),
    ],
)
def test_a_run_without_a_start_does_not_begin(flat: Flat, changes: Flat, told: str) -> None:
    with pytest.raises((ConfigError, PromptError), match=told):
        run(flat | changes)
