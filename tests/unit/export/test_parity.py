import json

import numpy as np
import pytest

from export.parity import compare
from fedprompt.errors import GraphError, ParityError

EXPECTED = np.array([[1.0, 2.0], [3.0, 0.0]], np.float32)


def test_equal_answers_hold() -> None:
    parity = compare(EXPECTED, EXPECTED)
    assert (parity.images, parity.agreement, parity.largest, parity.holds) == (2, 1.0, 0.0, True)
    parity.require()


@pytest.mark.parametrize(("shift", "holds"), [(9e-4, True), (2e-3, False)])
def test_the_bound_on_logits(shift: float, holds: bool) -> None:
    assert compare(EXPECTED + np.float32(shift), EXPECTED).holds is holds


def test_f32_a_breach_says_what_was_measured_and_asked() -> None:
    parity = compare(EXPECTED[:, ::-1], EXPECTED)
    assert parity.agreement == 0
    with pytest.raises(ParityError, match=r"difference 3, .* 0.00%; expected at most 0.001"):
        parity.require()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_answer_that_is_no_number_never_holds(value: float) -> None:
    found = EXPECTED.copy()
    found[0, 0] = value
    parity = compare(found, EXPECTED)
    assert not parity.holds
    json.dumps(parity.to_dict(), allow_nan=False)


def test_nothing_or_another_shape_is_refused() -> None:
    with pytest.raises(GraphError, match="logits"):
        compare(EXPECTED[:1], EXPECTED)
    with pytest.raises(GraphError, match="logits"):
        compare(EXPECTED[:0], EXPECTED[:0])
