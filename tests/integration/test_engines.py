"""The real ServerApp and ClientApp: one prompt, whatever engine runs them."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Context, RecordDict
from PIL import Image

from fedprompt.artefact import Artefact
from fedprompt.errors import CheckpointError, ConfigError, QuorumError
from fedprompt.run_folder import RunFolder
from fedprompt.settings.run_config import RunConfig, defaults
from server.app import app
from server.rounds import ray_engine
from server.rounds.local_grid import LocalGrid
from server.rounds.task_builder import Tuning
from server.run_folder import run_status
from server.run_folder.run_status import Outcome
from tests import round_lines
from tests.sites import IDENTITY
from tests.sites import client as toy_client

CLASSES = ("red", "green", "blue")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Write a small image folder: noisy squares of three colours."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for i, name in enumerate(CLASSES):
        (root / name).mkdir()
        for j in range(20):
            pixels = rng.integers(0, 90, (32, 32, 3), dtype=np.uint8)
            pixels[..., i] += 120
            Image.fromarray(pixels).save(root / name / f"{j}.png")
    return root


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, cache):
    monkeypatch.setenv("FEDPROMPT_CACHE", str(cache))


def settings(images, folder, **changes):
    own = {
        "backbone.name": "embedded-cnn",
        "data.source": str(images),
        "data.clients": 3,
        "data.partitioner": "iid",
        "server.rounds": 2,
        "server.output": str(folder),
        "prompt.rank": 2,
    }
    return defaults() | own | {key.replace("__", "."): value for key, value in changes.items()}


def run(images, folder, **changes):
    from client.app import app as client

    flat = settings(images, folder, **changes)
    with LocalGrid(client, flat["data.clients"], flat, flat["server.workers"]) as grid:
        app(grid=grid, context=Context(1, 0, {}, RecordDict(), flat))
    return Artefact.load(folder / "artefact")


@pytest.fixture(scope="module")
def reference(images, cache, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDPROMPT_CACHE", str(cache))
        return run(images, folder), folder


def equal(one, other):
    return one.tensors.keys() == other.tensors.keys() and all(
        one.tensors[n].tobytes() == other.tensors[n].tobytes() for n in one.tensors
    )


def test_a_run_leaves_record_checkpoints_artefact_and_outcome(reference):
    artefact, folder = reference
    lines = round_lines.read(folder)
    assert [line["round"] for line in lines] == [0, 1, 2]
    assert all(line["verdicts"] == [] for line in lines[1:])
    assert 0 < lines[-1]["information_density"] <= 1
    assert run_status.read(folder) == Outcome(artefact=artefact.sha256)
    aggregation = artefact.metadata["aggregation"]
    assert aggregation["rule"] == "fresh-basis"  # dip's own
    assert RunFolder(folder).settings()["server.rule"] == "fresh-basis"  # settings said nothing
    assert artefact.metadata["sent"] == 2 * artefact.tensors["ctx"].shape[1]
    assert aggregation["truncation_error"] == lines[-1]["truncation_error"]
    assert artefact.metadata["classes"] == sorted(CLASSES)


def test_the_prompt_moved(images, reference, tmp_path):
    artefact, _ = reference
    start = Tuning(RunConfig.parse(settings(images, tmp_path))).task().arrays["ctx"]
    assert np.abs(artefact.tensors["ctx"] - start).max() > 0


@pytest.mark.parametrize("changes", [{"server__workers": 3}, {"server__evaluate_every": 0}])
def test_threads_and_evaluation_do_not_change_a_byte(images, reference, tmp_path, changes):
    assert equal(run(images, tmp_path, **changes), reference[0])


def kill_after_round_1(images, folder, **changes):
    from server.rounds import loop

    original = loop.save

    def killed(folder, state):
        original(folder, state)
        if state.round == 1:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            run(images, folder, **changes)


def test_resumed_equals_uninterrupted(images, reference, tmp_path):
    kill_after_round_1(images, tmp_path)
    assert equal(run(images, tmp_path, server__resume=True), reference[0])


@pytest.mark.parametrize("recorded", [True, False])
def test_a_run_of_dip_under_the_rule_of_before_goes_on_under_it_or_not_at_all(
    images, tmp_path, recorded
):
    """Until dip had a rule of its own its settings said ``product``, or nothing."""
    whole = run(images, tmp_path / "whole", server__rule="product")
    folder = tmp_path / "parts"
    place = RunFolder(folder)
    kill_after_round_1(images, folder, server__rule="product")
    if not recorded:
        told = {n: v for n, v in place.settings().items() if n != "server.rule"}
        place.write_settings(told)
    before = place.settings_file.read_bytes(), place.record.read_bytes()
    with pytest.raises(CheckpointError) as caught:
        run(images, folder, server__resume=True)
    assert "server.rule was 'product', is 'fresh-basis'" in str(caught.value)
    assert 'to go on with it set server.rule = "product"' in str(caught.value)
    assert before == (place.settings_file.read_bytes(), place.record.read_bytes())
    again = run(images, folder, server__resume=True, server__rule="product")
    assert set(again.tensors) == {"ctx.A", "ctx.B", "ctx.start"}
    assert equal(again, whole)


def test_a_run_of_coop_goes_on_whether_its_rule_is_named_or_not(images, tmp_path):
    whole = run(images, tmp_path / "whole", prompt__method="coop")
    kill_after_round_1(images, tmp_path / "parts", prompt__method="coop", server__rule="product")
    own = {"prompt__method": "coop", "server__resume": True}
    assert equal(run(images, tmp_path / "parts", **own), whole)


@pytest.mark.parametrize(
    "changes",
    [
        {"server__rule": "shared-basis"},
        {"server__rule": "product"},
        {"prompt__method": "dip-fixed"},
        {"prompt__method": "dip-fixed", "server__strategy": "fedadam"},
        {"prompt__method": "dip-fixed", "server__dtype": "float16"},
        {"server__rule": "fresh-basis", "prompt__method": "linear", "prompt__form": "lowrank"},
        {"server__rule": "fresh-basis", "prompt__method": "coop"},
        {"prompt__personal": "both"},
        {"server__strategy": "fedavgm"},
        {"server__rule": "factors"},
        {"server__strategy": "fedprox"},
        {"server__strategy": "fedadam"},
        {"server__dtype": "float16"},
        {"prompt__method": "dip-fixed", "fit__rank": 1},
        {"prompt__method": "coop"},
    ],
)
def test_every_rule_strategy_and_form_runs(images, tmp_path, changes):
    artefact = run(images, tmp_path, server__rounds=1, **changes)
    lines = round_lines.read(tmp_path)
    assert lines[-1]["accepted"] == [0, 1, 2]
    assert artefact.metadata["round"] == 1


def test_sites_with_another_backbone_do_not_join(images, tmp_path):
    flat = settings(images, tmp_path)
    other = toy_client(identity=IDENTITY)
    with (
        LocalGrid(other, 3, flat) as grid,
        pytest.raises(QuorumError, match="the server has"),
    ):
        app(grid=grid, context=Context(1, 0, {}, RecordDict(), flat))
    assert run_status.read(tmp_path).error == "QuorumError"


def test_a_prompt_without_parameters_is_refused(images, tmp_path):
    with pytest.raises(ConfigError, match="trains nothing"):
        Tuning(RunConfig.parse(settings(images, tmp_path, prompt__method="template")))


def test_what_is_free_does_not_change_the_run(images, tmp_path):
    one = Tuning(RunConfig.parse(settings(images, tmp_path))).task()
    free = settings(images, tmp_path / "x", server__workers=2, server__deadline=9.0)
    assert Tuning(RunConfig.parse(free)).task().run == one.run
    other = settings(images, tmp_path, fit__learning_rate=0.5)
    assert Tuning(RunConfig.parse(other)).task().run != one.run


@pytest.mark.slow
def test_ray_ends_in_the_same_bytes_through_the_command(images, reference, tmp_path):
    own = settings(images, tmp_path / "run")
    given = [f"{key}={json.dumps(value)}" for key, value in own.items() if value != ""]
    sets = [part for pair in given for part in ("--set", pair)]
    command = [sys.executable, "-c", "from fedprompt.cli import main; main()"]
    command += ["simulate", "--engine", "ray", "--json", *sets]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["rounds"] == 2
    assert "round 2/2" in done.stderr
    assert equal(Artefact.load(tmp_path / "run" / "artefact"), reference[0])


@pytest.mark.slow
def test_flwr_run_of_the_repository_ends_in_the_same_bytes(images, reference, tmp_path):
    """`flwr run .`, with Flower's own command line and the pyproject.toml of this repository."""
    root = Path(__file__).parents[2]
    flat = settings(images, tmp_path / "run")
    changed = {key: value for key, value in flat.items() if value != defaults()[key]}
    overrides = " ".join(f"{key}={json.dumps(value)}" for key, value in changed.items())
    with ray_engine._superlink(tmp_path) as flower:
        federation = "num-supernodes=3 client-resources-num-cpus=1"
        run = flower.submit(root, "--federation-config", federation, "--run-config", overrides)
        end = time.monotonic() + 1200  # on a busy machine Ray alone takes minutes
        while not flower.status(run).startswith("finished"):
            assert time.monotonic() < end, (tmp_path / "flower-superlink.log").read_text()[-2000:]
            time.sleep(5)  # each question is a process of its own
    run_status.raise_failure(tmp_path / "run")
    assert equal(Artefact.load(tmp_path / "run" / "artefact"), reference[0])
