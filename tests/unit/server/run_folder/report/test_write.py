"""``fedprompt report`` from the command line."""

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from fedprompt import cli
from fedprompt.errors import CheckpointError, StorageError
from fedprompt.experiments import evaluation
from tests.unit.server.run_folder.report.made_up_run import lines, predictions


def run(*arguments):
    return CliRunner().invoke(cli.group, ["report", *map(str, arguments)])


def test_the_page_lands_in_the_runs_folder(make_run):
    folder = make_run(found=lines(2))
    found = run(folder)
    assert found.exception is None
    assert (folder / "report.html").read_text().startswith("<!doctype html>")
    assert found.output.replace("\u00a0", " ").startswith(f"{folder}/report.html (")
    assert "zero-shot 65.8 %" in found.output.replace("\u00a0", " ")


def test_output_and_json(make_run, tmp_path):
    folder = make_run(found=lines(2), predicted=None)
    found = run(folder, "--output", tmp_path / "new" / "page.html", "--json")
    told = json.loads(found.output)
    assert told["report"] == str(tmp_path / "new" / "page.html")
    assert told["bytes"] == (tmp_path / "new" / "page.html").stat().st_size
    assert told["numbers"] == 516
    assert told["predictions"] is False


def test_a_missing_part_is_told_with_its_command(make_run):
    folder = make_run(found=lines(1), predicted=None)
    assert f"fedprompt eval {folder}" in run(folder).output


def test_data_scores_images_first_and_prints_one_result(make_run, monkeypatch):
    folder = make_run(found=lines(1), predicted=None)

    def score(path, given):
        assert (path, given) == (folder, {"data.source": "photos"})
        (path / "predictions.json").write_text(json.dumps(predictions()))

    monkeypatch.setattr(evaluation, "score", score)
    told = json.loads(run(folder, "--data", "photos", "--json").output)
    assert told["predictions"] is True


@pytest.mark.parametrize("content", [b"{}\n", b"\x00\n", b'{"round": 0}\n{"round": 0}\n'])
def test_a_damaged_record_is_a_clear_error_and_writes_nothing(make_run, content):
    folder = make_run()
    (folder / "rounds.jsonl").write_bytes(content)
    assert run(folder).exit_code == CheckpointError.exit_code
    assert not (folder / "report.html").exists()


def test_a_page_that_cannot_be_written_is_a_clear_error(make_run, tmp_path):
    (tmp_path / "file").touch()
    found = run(make_run(found=lines(1)), "--output", tmp_path / "file" / "page.html")
    assert found.exit_code == StorageError.exit_code


def test_the_report_loads_neither_torch_nor_flower():
    code = (
        "import sys, server.run_folder.report.write; "
        "assert not {'torch', 'flwr', 'open_clip', 'matplotlib.pyplot'} & set(sys.modules), 'heavy'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
