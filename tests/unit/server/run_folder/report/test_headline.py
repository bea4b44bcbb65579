"""The main figures, against sums done by hand."""

import pytest

from server.run_folder.report.headline import headline
from tests.unit.server.run_folder.report.made_up_run import artefact, parse


def line(**values):
    return parse([{"round": 0} | values])[0]


def test_of_two_rounds():
    scores = {"0": {"accuracy": 0.5, "examples": 10}, "1": {"accuracy": 0.0, "examples": 4}}
    lines = [
        line(accuracy=0.4, nodes={"0": 7, "1": 8}, join_bytes_up=5, join_bytes_down=6, seconds=1.0),
        line(round=1, asked=(0, 1), answered=(0,), bytes_up=100, bytes_down=220,
             evaluation_bytes_up=10, evaluation_bytes_down=20, accuracy=0.45, sites=scores,
             nodes={"0": 7, "1": 8, "2": 9}, seconds=2.0),
    ]  # fmt: skip
    found = headline(lines, artefact())
    assert found.zero_shot_accuracy == 0.4
    assert found.gain == pytest.approx(0.05)
    assert (found.worst_client_acc, found.worst_site) == (0.5, 0)  # site 1 has too few images
    assert (found.sites, found.rounds, found.seconds) == (3, 1, 3.0)
    assert found.numbers == 516
    assert found.message_bytes == 100
    assert (found.training.up, found.training.down) == (100, 220)
    assert (found.total.up, found.total.down) == (115, 246)
    model = 4 * 149_620_737
    assert (found.whole_model.up, found.whole_model.down) == (model, 2 * model)
    assert found.saving == 3 * model / 320
    assert found.to_dict()["gain"] == found.gain


def test_of_nothing():
    found = headline([], None)
    assert found.gain is found.saving is found.numbers is found.message_bytes is None
    assert found.sites == found.rounds == 0


def test_a_round_that_was_not_evaluated_leaves_the_last_accuracy():
    lines = [line(accuracy=0.4), line(round=1, accuracy=0.6), line(round=2)]
    assert headline(lines, None).accuracy == 0.6


@pytest.mark.parametrize("parameters", [None, "many", 0, -1, 1.5])
def test_a_size_that_is_no_number_of_parameters_is_left_out(parameters):
    prompt = artefact(backbone={"sha256": "c" * 64, "parameters": parameters})
    assert headline([line()], prompt).whole_model is None


@pytest.mark.parametrize("sent", [0, 512])
def test_the_artefact_says_what_was_sent_where_it_holds_more(sent):
    """Under a fresh basis it holds a full matrix; a site of ``local`` prompts sends nothing."""
    assert headline([], artefact(sent=sent)).numbers == sent
    assert headline([], artefact(sent="512")).numbers == 516  # no number: all that was trained
