import itertools
import math

import pytest

from benchmarks.pairs import FEWEST, MOST, in_turn, milliseconds, ratio, ratios


def steps(tick):
    """Return a clock that moves on with every look."""
    count = itertools.count()
    return lambda: tick * next(count)


def test_runs_take_turns_and_every_other_round_is_backwards():
    order = []
    runs = {name: lambda name=name: order.append(name) for name in "abc"}
    times = in_turn(runs, 0.0, clock=steps(1.0))
    assert "".join(order) == "abc" + "abc" + "cba" + "abc" + "cba" + "abc"
    assert {name: len(own) for name, own in times.items()} == dict.fromkeys("abc", FEWEST)


def test_there_are_as_many_rounds_as_fit():
    runs = {"a": lambda: None}
    rounds = len(in_turn(runs, 60.0, clock=steps(1.0))["a"])  # three looks at the clock a round
    assert rounds == 19
    assert len(in_turn(runs, 1e9, clock=steps(1.0))["a"]) == MOST


def test_a_ratio_is_of_medians_and_its_spread_is_of_pairs():
    found = ratio([2.0, 4.0, 6.0], [1.0, 1.0, 2.0])
    assert found == (4.0, 2.5, 3.5)  # pairs: 2, 4, 3
    assert str(found) == "4.00 (2.50 to 3.50)"


def test_ratios_leave_the_reference_out():
    times = {"eager": [2.0, 2.0], "graph": [1.0, 1.0], "other": [4.0, 4.0]}
    found = ratios(times, "eager")
    assert {name: own.median for name, own in found.items()} == {"graph": 2.0, "other": 0.5}


def test_milliseconds_of_nothing_are_no_number():
    assert milliseconds([0.001, 0.003, 0.002]) == pytest.approx(2.0)
    assert math.isnan(milliseconds([]))
