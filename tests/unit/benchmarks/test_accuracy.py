import pytest

from benchmarks import accuracy
from benchmarks.accuracy import CASES, DEMO
from fedprompt.config import check, defaults, load


def test_every_case_is_a_sound_configuration_of_the_demo() -> None:
    for changes in CASES.values():
        check(defaults() | load(DEMO) | changes)


def test_figures_are_mean_and_deviation_over_the_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {0: (0.10, 0.30), 1: (0.20, 0.34), 2: (0.30, 0.50)}
    monkeypatch.setattr(
        accuracy,
        "accuracies",
        lambda seed: dict(zip(("zero-shot", "dip"), found[seed], strict=True)),
    )
    figures = accuracy.measure()
    assert figures["dip_mean"] == pytest.approx(38.0)
    assert figures["zero_shot_std"] == pytest.approx(10.0)
    assert figures["least_gain_points"] == pytest.approx(14.0)
    assert figures["seeds"] == 3
