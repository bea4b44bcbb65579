import math

import pytest

from client.tuning.schedule_window import rate
from fedprompt.settings.fit import FitConfig


@pytest.mark.parametrize(
    ("progress", "expected"),
    [
        (0.0, 0.01),  # never quite zero, or the first step would be lost
        (0.001, 0.01),
        (0.05, 0.5),
        (0.1, 1.0),
        (0.325, 0.5 * (1 + math.cos(math.pi / 4))),
        (0.55, 0.5),
        (0.775, 0.5 * (1 + math.cos(math.pi * 3 / 4))),
        (1.0, 0.0),
        (1.5, 0.0),  # a resumed run may be longer than was planned
    ],
)
def test_cosine_with_warm_up(progress: float, expected: float) -> None:
    config = FitConfig(learning_rate=4e-3, warmup=0.1)
    assert rate(config, progress) == pytest.approx(4e-3 * expected, rel=1e-9, abs=1e-12)


def test_constant_after_the_warm_up() -> None:
    config = FitConfig(learning_rate=1.0, warmup=0.5, schedule="constant")
    assert [rate(config, p) for p in (0.25, 0.5, 0.9, 1.0)] == [0.5, 1.0, 1.0, 1.0]


def test_without_warm_up_it_starts_at_the_top() -> None:
    assert rate(FitConfig(learning_rate=1.0, warmup=0), 0.0) == 1.0


def test_it_rises_then_falls() -> None:
    found = [rate(FitConfig(warmup=0.2), step / 100) for step in range(101)]
    assert found[:21] == sorted(found[:21])
    assert found[20:] == sorted(found[20:], reverse=True)
    assert max(found) == FitConfig().learning_rate
