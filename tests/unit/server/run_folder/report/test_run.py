"""A run's folder may lack parts, but not all of them."""

import pytest

from fedprompt.errors import ArtefactError, CheckpointError
from server.run_folder.report.run import read_run
from tests.unit.server.run_folder.report.made_up_run import artefact, lines


def test_a_whole_run(make_run):
    found = read_run(make_run())
    assert len(found.records) == 11
    assert found.artefact.sha256 == found.ended.artefact == artefact().sha256
    assert found.predictions.images
    assert not found.torn


@pytest.mark.parametrize("missing", ["found", "prompt", "predicted"])
def test_each_part_may_be_missing(make_run, missing):
    found = read_run(make_run(**{missing: None}))
    assert bool(found.records) == (missing != "found")
    assert (found.artefact is None) == (missing == "prompt")
    assert (found.predictions is None) == (missing == "predicted")


def test_a_folder_without_a_run_says_how_to_make_one(tmp_path):
    with pytest.raises(CheckpointError, match=r"holds no run.*fedprompt simulate"):
        read_run(tmp_path)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="is no folder"):
        read_run(tmp_path / "none")


def test_a_damaged_artefact_is_refused(make_run):
    folder = make_run()
    (folder / "artefact" / "adapter_model.safetensors").write_bytes(b"x")
    with pytest.raises(ArtefactError):
        read_run(folder)


def test_settings_are_read_where_they_are(make_run):
    folder = make_run(found=lines(1))
    assert read_run(folder).settings == {}
    (folder / "settings.json").write_text('{"data.alpha": 0.3, "server.resume": false}')
    assert read_run(folder).settings == {"data.alpha": 0.3, "server.resume": False}


@pytest.mark.parametrize("content", ["{", "[]", '{"a": [1]}', '{"a": "\\ud800"}'])
def test_damaged_settings_are_refused(make_run, content):
    folder = make_run(found=lines(1))
    (folder / "settings.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"settings\.json is damaged"):
        read_run(folder)
