"""The command's own parts; whole runs are in tests/integration."""

import logging

import pytest
from rich.console import Console

from fedprompt.errors import CheckpointError
from server import outcome, record
from server.progress import LineDisplay
from server.rounds import log
from server.simulate import Engine, feeding, queued, run_local, run_on, summarise, tell


def test_deadlines_of_sites_that_wait_for_each_other_add_up():
    found = queued({"data.clients": 7, "server.deadline": 2.0})
    assert found == {"server.deadline": 14.0, "server.join_deadline": 4200.0}


def test_engines_are_found_by_name():
    assert run_on(Engine.LOCAL) is run_local
    assert run_on(Engine.RAY).__name__ == "run_ray"


def test_a_run_is_summed_up_from_its_record(tmp_path):
    common = {"information_density": 0.4, "prompt": "f" * 64, "strikes": {}}
    for i, accuracy in enumerate((0.5, None, 0.75)):
        line = {"round": i, **common}
        if accuracy:
            line |= {"accuracy": accuracy, "worst_client_acc": accuracy / 2}
        if i:
            line |= {"bytes_up": 10, "bytes_down": 20, "truncation_error": 0.1}
        record.append(tmp_path / "rounds.jsonl", line)
    outcome.write_success(tmp_path, "abc")
    result = summarise(tmp_path)
    assert (result["zero_shot_accuracy"], result["accuracy"]) == (0.5, 0.75)
    assert (result["bytes_up"], result["bytes_down"], result["artefact"]) == (20, 40, "abc")
    told = tell(result, 2)
    assert "2 of 2 rounds done: accuracy 75.0%" in told
    assert "zero-shot 50.0%" in told


def test_an_unevaluated_run_is_told_without_accuracy(tmp_path):
    line = {"round": 0, "information_density": 1.0, "prompt": "a" * 64, "strikes": {}}
    record.append(tmp_path / "rounds.jsonl", line)
    assert "accuracy" not in tell(summarise(tmp_path), 0)


def test_feeding_leaves_the_logger_as_it_was():
    before = (log.level, log.propagate, list(log.handlers))
    with feeding(LineDisplay(1, Console(stderr=True))):
        assert log.level == logging.DEBUG
    assert (log.level, log.propagate, list(log.handlers)) == before


def test_a_run_without_its_record_is_told_in_one_line(tmp_path):
    with pytest.raises(CheckpointError, match=r"rounds.jsonl is gone or empty"):
        summarise(tmp_path)
