import hashlib
from typing import Any

import numpy as np
import pytest

from export.parity.probes import Probes, probe_images
from fedprompt.errors import GraphError


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
