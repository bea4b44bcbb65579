import itertools
import json

import numpy as np

from export.parity.compare import compare
from export.parity.conversion_report import Rung, speed


def test_speed_is_the_ratio_of_medians_taken_in_turn() -> None:
    took = iter([4.0, 1.0, 6.0, 3.0, 5.0, 2.0])  # reference, changed, reference, ...
    now = [0.0]
    order: list[str] = []

    def clock() -> float:
        return now[0]

    def step(name: str) -> None:
        order.append(name)
        if len(order) > 2:  # the first of each is warm-up
            now[0] += next(took)

    found = speed(lambda: step("r"), lambda: step("c"), repeats=3, clock=clock)
    assert found == 5.0 / 2.0
    assert order == list(itertools.islice(itertools.cycle("rc"), 8))


def test_a_rung_is_plain_json_and_a_line() -> None:
    expected = np.array([[1.0, 2.0], [3.0, 0.0]], np.float32)
    parity = compare(expected[::-1], expected, "int8", labels=np.array([1, 0]))
    rung = Rung.of("int8", parity, size=2_500_000, nodes=7, speed=3.0)
    assert json.loads(json.dumps(rung.to_dict()))["loss"] == 1.0
    assert str(rung) == (
        "int8: 2.5 MB, same first class on 0.00%, accuracy -100.00 points, 3.00 times as fast as "
        "open_clip here"
    )
