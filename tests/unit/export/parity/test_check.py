from typing import Any

import numpy as np
import pytest
import torch

from export.fold.constants import Constants
from export.graph.fuse import fuse
from export.parity.check import Trial
from export.parity.probes import COUNT
from export.targets import FP32
from fedprompt.backbone.clip import FrozenClip


def test_a_graph_is_measured_on_real_images_and_on_probes(
    clip: FrozenClip, constants: Constants, images: Any
) -> None:
    trial = Trial(clip, constants, images, None)
    parity, probes, rung = trial.measure(fuse(clip, constants, "ort"), FP32)
    assert parity is not None
    assert (parity.images, probes.images) == (len(images), COUNT)
    assert parity.holds
    assert probes.holds
    assert (rung.step, rung.largest) == ("fp32, ort operators", parity.largest)
    assert rung.speed is not None
    assert rung.speed > 0


def test_without_real_images_the_probes_stand_for_them(
    clip: FrozenClip, constants: Constants, images: Any
) -> None:
    trial = Trial(clip, constants, images[:0], None)
    parity, probes, rung = trial.measure(fuse(clip, constants, "portable"), FP32)
    assert parity is None
    assert rung.largest == probes.largest


def test_its_probes_are_torchs_answers(clip: FrozenClip, constants: Constants, images: Any) -> None:
    moved = Constants(class_vectors=constants.class_vectors[::-1].copy())
    found = Trial(clip, moved, images, None).probes
    np.testing.assert_allclose(found[:, ::-1], Trial(clip, constants, images, None).probes)
    assert found.shape == (COUNT, len(constants.class_vectors))


def test_threads_of_torch_are_as_before(
    clip: FrozenClip, constants: Constants, images: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are timed with one thread, and a failure on the way leaves no trace either."""
    seen: list[int] = []

    def timed(reference: Any, changed: Any, **_: object) -> float:
        seen.append(torch.get_num_threads())
        raise RuntimeError("stop")

    monkeypatch.setattr("export.parity.check.speed", timed)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        trial = Trial(clip, constants, images, None)
        with pytest.raises(RuntimeError, match="stop"):
            trial.measure(fuse(clip, constants, "ort"), FP32)
        assert (seen, torch.get_num_threads()) == ([1], 2)
    finally:
        torch.set_num_threads(before)


def test_a_graph_of_other_classes_is_far_from_torch(
    clip: FrozenClip, constants: Constants, images: Any
) -> None:
    moved = Constants(class_vectors=constants.class_vectors[::-1].copy())
    parity, _, _ = Trial(clip, constants, images, None).measure(fuse(clip, moved, "ort"), FP32)
    assert parity is not None
    assert not parity.holds
