import hashlib
import json
from typing import Any

import numpy as np
import pytest

from export.parity.compare import Probes, compare, compare_probes, probe_images
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


WIDE = np.array([[0.0, 10.0], [10.0, 0.0]], np.float32)  # a range of 10


@pytest.mark.parametrize(
    ("precision", "shift", "holds"),
    [("fp16", 0.09, True), ("fp16", 0.11, False), ("int8", 1.9, True), ("int8", 2.1, False)],
)
def test_short_numbers_are_bounded_by_the_range_of_logits(
    precision: str, shift: float, holds: bool
) -> None:
    assert compare(WIDE + np.float32(shift), WIDE, precision).holds is holds


def flipped(count: int, total: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    """Return torch's logits and others of which ``count`` have another first class."""
    expected = np.tile(np.array([0.0, 1.0, 10.0], np.float32), (total, 1))
    found = expected.copy()
    expected[:count, 2] = found[:count, 2] = 0.95  # near enough to change places
    found[:count, 2] += 0.1
    return found, expected


@pytest.mark.parametrize(
    ("precision", "count", "holds"),
    [("fp16", 5, True), ("fp16", 6, False), ("int8", 10, True), ("int8", 11, False)],
)
def test_without_labels_agreement_decides(precision: str, count: int, holds: bool) -> None:
    found, expected = flipped(count)
    found = (found - expected) * np.float32(0.6) + expected  # within fp16's bound on logits
    assert compare(found, expected, precision).agreement == 1 - count / 1000
    assert compare(found, expected, precision).holds is holds


@pytest.mark.parametrize(
    ("right", "loss", "holds"),
    [("torch", 0.05, False), ("graph", -0.05, True), ("neither", 0.0, True)],
)
def test_with_labels_int8_is_judged_by_what_is_right(right: str, loss: float, holds: bool) -> None:
    found, expected = flipped(50)
    labels = {"torch": expected.argmax(1), "graph": found.argmax(1), "neither": np.zeros(1000)}
    parity = compare(found, expected, "int8", labels[right].astype(np.int64))
    assert parity.loss == pytest.approx(loss)
    assert parity.holds is holds
    if not holds:
        with pytest.raises(ParityError, match=r"accuracy -5.00 points; .* under 1 points"):
            parity.require()
    fp16 = compare(found, expected, "fp16", labels[right].astype(np.int64))
    assert not fp16.holds  # labels excuse nothing here


def test_probes_below_fp32_may_change_places() -> None:
    found, expected = flipped(50)
    assert compare_probes(found, expected, "int8").holds
    assert not compare_probes(found, expected, "fp32").holds
    assert not compare_probes(found + np.float32(9), expected, "int8").holds


def test_a_precision_of_a_later_release_is_explained() -> None:
    with pytest.raises(GraphError, match=r"'int4'.*upgrade"):
        compare(EXPECTED, EXPECTED, "int4")


@pytest.mark.parametrize(("images", "coarse"), [(99, True), (100, False)])
def test_few_labelled_images_cannot_show_the_bound(images: int, coarse: bool) -> None:
    logits = np.eye(10, dtype=np.float32)[np.arange(images) % 10]
    labels = np.arange(images, dtype=np.int64) % 10
    assert compare(logits, logits, "int8", labels).coarse is coarse
    assert not compare(logits, logits, "int8").coarse  # agreement decides
    assert not compare(logits, logits, "fp16", labels).coarse


def test_probes_are_the_same_on_every_machine() -> None:
    pixels = probe_images(0, 8, 64)
    assert pixels.shape == (8, 64, 64, 3)
    assert pixels.dtype == np.uint8
    digest = hashlib.sha256(pixels.tobytes()).hexdigest()
    assert digest.startswith("6ddda1f33be373ca")


def test_seeds_and_indices_give_different_images() -> None:
    images = np.concatenate([probe_images(seed, 8, 48) for seed in (0, 1)])
    assert len({image.tobytes() for image in images}) == 16


def test_a_size_below_the_grid_still_works() -> None:
    assert probe_images(0, 8, 5).shape == (8, 5, 5, 3)


def test_answers_survive_the_round_trip_bit_for_bit() -> None:
    logits = np.random.default_rng(0).standard_normal((8, 3)).astype(np.float32)
    found = Probes.from_dict(Probes(seed=7, logits=logits).to_dict())
    assert found.seed == 7
    np.testing.assert_array_equal(found.logits, logits)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": "x"},
        {"shape": [8]},
        {"shape": [8, 4]},
        {"shape": [-1, 3]},
        {"shape": "no"},
        {"logits": "%%%"},
        {"logits": 3},
        {"logits": ""},
    ],
)
def test_damaged_answers_are_refused(change: dict[str, Any]) -> None:
    values = Probes(seed=0, logits=np.zeros((8, 3), np.float32)).to_dict()
    if change == {"shape": [-1, 3]}:
        values["logits"] = ""
    with pytest.raises(GraphError, match="probes"):
        Probes.from_dict(values | change)


def test_answers_that_are_not_finite_are_refused() -> None:
    values = Probes(seed=0, logits=np.full((1, 2), np.nan, np.float32)).to_dict()
    with pytest.raises(GraphError, match="finite"):
        Probes.from_dict(values)
