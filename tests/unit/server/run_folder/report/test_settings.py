from pathlib import Path

from fedprompt.round_record import RoundRecord
from server.run_folder.report.run import Run
from server.run_folder.report.settings import hash_rows, setting_rows
from tests.unit.server.run_folder.report.made_up_run import artefact


def test_settings_and_hashes_are_told_apart():
    run = Run(
        Path("r"), (RoundRecord(round=0, run="ab"),), artefact=artefact(), settings={"b": True}
    )
    rows, hashes = dict(setting_rows(run)), dict(hash_rows(run))
    assert rows["b"] == "yes"
    assert rows["backbone.name"] == "ViT-B-16"
    assert rows["aggregation.truncation_error"] == "0.0216"
    assert rows["privacy"] == "none"
    assert "classes" not in rows
    assert hashes["backbone.sha256"] == "c" * 64
    assert hashes["artefact"] == artefact().sha256
    assert hashes["run"] == "ab"
    assert not rows.keys() & hashes.keys()


def test_nothing_is_known():
    assert setting_rows(Run(Path("r"))) == hash_rows(Run(Path("r"))) == []


def test_a_budget_that_nothing_spends_is_not_shown():
    budget = {"privacy.epsilon": 8.0, "privacy.noise_multiplier": 0.0, "server.rounds": 3}
    assert setting_rows(Run(Path("r"), settings=budget)) == [
        ("privacy", "off"), ("server.rounds", "3"),
    ]  # fmt: skip
    private = budget | {"privacy.noise_multiplier": 1.0}
    assert ("privacy.epsilon", "8") in setting_rows(Run(Path("r"), settings=private))
