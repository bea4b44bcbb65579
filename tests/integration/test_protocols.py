"""`fedprompt eval --protocol` over a real federation in this process."""

import json

import pytest
from click.testing import CliRunner

from client import app, site
from fedprompt.artefact import Artefact
from fedprompt.cli import group
from fedprompt.data.load import load
from fedprompt.experiments import setup
from fedprompt.run_folder import RunFolder
from fedprompt.settings.run_config import RunConfig
from server.rounds import task_builder
from tests import round_lines
from tests.pictures import image_folder

CLASSES = ("ant", "bee", "cat", "dog", "emu")  # three of them base


@pytest.fixture
def photos(clip, monkeypatch, tmp_path):
    monkeypatch.setenv("FEDPROMPT_CACHE", str(tmp_path / "cache"))
    for module in (site, task_builder, setup):
        monkeypatch.setattr(module, "shared_backbone", lambda config: clip)
    return image_folder(tmp_path / "photos", CLASSES, 20)


def call(photos, out, *arguments):
    sets = ("data.clients=3", "server.rounds=2", "fit.epochs=1", f"data.source={photos}")
    given = [part for setting in sets for part in ("--set", setting)]
    command = ["eval", "--seeds", "0,1", "--output", str(out), *arguments, *given]
    done = CliRunner().invoke(group, command)
    assert done.exit_code == 0, done.output
    return json.loads((out / "results.json").read_text())


@pytest.fixture
def results(photos, tmp_path):
    arguments = ("--protocol", "federated-base-to-new", "--methods", "template,dip,dip-fixed,coop")
    return call(photos, tmp_path / "out", *arguments)


def test_the_table_is_the_runs_own_record_summed_up(results, tmp_path):
    rows = {row["case"]: row for row in results["rows"]}
    assert list(rows) == ["template", "dip", "dip-fixed", "coop"]
    for method in ("dip", "dip-fixed", "coop"):
        local = []
        for seed in (0, 1):
            run = tmp_path / "out" / method / f"seed-{seed}" / "run"
            lines = round_lines.read(run)
            assert [line["round"] for line in lines] == [0, 1, 2]
            assert lines[-1]["accepted"] == [0, 1, 2]
            sites = lines[-1]["sites"].values()
            local.append(sum(found["accuracy"] for found in sites) / len(sites))
            assert Artefact.load(run / "artefact").metadata["classes"] == list(CLASSES[:3])
            assert RunFolder(run).settings()["data.seed"] == seed
        assert rows[method]["metrics"]["local_acc"]["mean"] == pytest.approx(sum(local) / 2)
    for trial in results["trials"]:
        figures = trial["metrics"]
        mean = figures["harmonic_mean"]
        assert figures["combined_metric"] == pytest.approx((figures["local_acc"] + mean) / 2)
    sent = {"template": 0, "dip": 32, "dip-fixed": 4 + 32, "coop": 4 * 32}
    assert {name: row["sent"] for name, row in rows.items()} == sent
    assert rows["dip"]["bytes_up"] < rows["dip-fixed"]["bytes_up"] < rows["coop"]["bytes_up"]
    assert [rows[name]["form"] for name in sent] == ["", "lowrank", "lowrank", "full"]


def test_sites_are_let_go_of(results):
    assert app._known_site.cache_info().currsize == 0


def test_no_class_lies_at_two_sites(results, tmp_path):
    from fedprompt.data.load import share

    flat = RunFolder(tmp_path / "out/coop/seed-0/run").settings()
    data = RunConfig.parse(flat).data
    held = [set(share(data, i, 3).train.labels.tolist()) for i in range(3)]
    assert sorted(label for labels in held for label in labels) == [0, 1, 2]
    assert load(data)[0].counts().tolist() == [16, 16, 16]  # shots


def test_personal_over_the_same_engine(photos, tmp_path):
    arguments = ("--protocol", "personal", "--methods", "template,coop")
    found = call(photos, tmp_path / "out", *arguments, "--set", "data.partitioner=iid")
    for trial in found["trials"]:
        figures = trial["metrics"]
        assert figures["worst_client_acc"] <= figures["local_acc"]
        assert 0 < figures["global_acc"] <= 1
