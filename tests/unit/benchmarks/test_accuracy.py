import pytest

from benchmarks import accuracy
from benchmarks.accuracy import CASES, DEMO, Outcome
from fedprompt.settings.run_config import RunConfig, load_flat


def test_every_case_is_a_sound_configuration_of_the_demo() -> None:
    for changes in CASES.values():
        RunConfig.parse(load_flat(DEMO) | changes)


def test_dip_stands_beside_the_published_one_and_coop() -> None:
    found = {
        name: RunConfig.parse(load_flat(DEMO) | own).server.rule for name, own in CASES.items()
    }
    assert found == {
        "dip": "fresh-basis",
        "dip-fixed": "product",
        "coop": "product",
    }


def test_figures_are_means_and_intervals_over_the_seeds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reached = {0: (10, 30, 31, 35), 1: (20, 34, 35, 36), 2: (30, 50, 51, 49)}
    sent = {"zero-shot": 0, "dip": 192, "dip-fixed": 196, "coop": 768}

    def outcomes(seed: int) -> dict[str, Outcome]:
        pairs = zip(sent.items(), reached[seed], strict=True)
        return {name: Outcome(value, 1000, numbers) for (name, numbers), value in pairs}

    monkeypatch.setattr(accuracy, "outcomes", outcomes)
    figures = accuracy.measure()
    widening = 4.303 / 3**0.5  # Student's t over three seeds
    assert figures["dip"] == pytest.approx(38.0)
    assert figures["dip_half_width"] == pytest.approx(112**0.5 * widening)
    assert figures["coop"] == pytest.approx(40.0)
    assert (figures["zero_shot"], figures["zero_shot_half_width"]) == (20, 10 * widening)
    assert figures["dip_behind_coop"] == pytest.approx(2.0)
    assert figures["dip_behind_coop_half_width"] == pytest.approx(3.0 * widening)
    assert (figures["dip_behind_dip_fixed"], figures["dip_behind_dip_fixed_half_width"]) == (1, 0)
    assert figures["numbers_up_ratio"] == 0.25
    assert figures["least_gain_points"] == pytest.approx(14.0)
    assert (figures["seeds"], figures["images"]) == (3, 1000)
    assert "1,000 test images" in capsys.readouterr().out
