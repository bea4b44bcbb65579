from dataclasses import replace

from server.run_folder.report.doubts import doubts
from server.run_folder.report.predictions import Predictions
from server.run_folder.report.run import read_run
from tests.unit.server.run_folder.report.made_up_run import artefact, lines


def test_a_whole_run_raises_none(make_run):
    assert doubts(read_run(make_run())) == []


def test_a_record_that_ends_in_half_a_line(make_run):
    folder = make_run(found=lines(2))
    with (folder / "rounds.jsonl").open("ab") as file:
        file.write(b'{"round":3,"lo')
    assert "half a line" in doubts(read_run(folder))[0]


def test_an_artefact_of_another_round(make_run):
    other = artefact()
    other.tensors["ctx.A"][0, 0] += 1
    assert "does not hold the prompt" in doubts(read_run(make_run(prompt=other)))[0]


def test_predictions_of_another_prompt(make_run):
    run = read_run(make_run())
    assert (
        doubts(replace(run, predictions=Predictions(accuracy=1, artefact=run.artefact.sha256)))
        == []
    )
    told = doubts(replace(run, predictions=Predictions(accuracy=1, artefact="0" * 64)))
    assert "another prompt" in told[0]
