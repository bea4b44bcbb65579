import itertools
import json
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch

import export.parity.check
from export.fold.constants import Constants
from export.graph.fuse import fuse
from export.parity.check import (
    ConversionStep,
    ParityCheck,
    open_graph,
    reference_logits,
    run_graph,
    time_ratio,
)
from export.parity.compare import PROBES
from export.precision import FP32, rewrite_to
from fedprompt.backbone.clip import FrozenClip
from fedprompt.errors import ProviderError


def test_a_graph_is_measured_on_real_images_and_on_probes(
    clip: FrozenClip, constants: Constants, images: Any
) -> None:
    check = ParityCheck(clip, constants, images, None)
    parity, probes, step = check.measure(fuse(clip, constants, "ort"), FP32)
    assert parity is not None
    assert (parity.images, probes.images) == (len(images), PROBES)
    assert parity.holds
    assert probes.holds
    assert (step.step, step.largest) == ("fp32, ort operators", parity.largest)
    assert step.speed is not None
    assert step.speed > 0


def test_without_real_images_the_probes_stand_for_them(
    clip: FrozenClip, constants: Constants, images: Any
) -> None:
    check = ParityCheck(clip, constants, images[:0], None)
    parity, probes, step = check.measure(fuse(clip, constants, "portable"), FP32)
    assert parity is None
    assert step.largest == probes.largest


def test_its_probes_are_torchs_run_graph(
    clip: FrozenClip, constants: Constants, images: Any
) -> None:
    moved = Constants(class_vectors=constants.class_vectors[::-1].copy())
    found = ParityCheck(clip, moved, images, None).probes
    np.testing.assert_allclose(found[:, ::-1], ParityCheck(clip, constants, images, None).probes)
    assert found.shape == (PROBES, len(constants.class_vectors))


def test_threads_of_torch_are_as_before(
    clip: FrozenClip, constants: Constants, images: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are timed with one thread, and a failure on the way leaves no trace either."""
    seen: list[int] = []

    def timed(reference: Any, changed: Any, **_: object) -> float:
        seen.append(torch.get_num_threads())
        raise RuntimeError("stop")

    monkeypatch.setattr("export.parity.check.time_ratio", timed)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        check = ParityCheck(clip, constants, images, None)
        with pytest.raises(RuntimeError, match="stop"):
            check.measure(fuse(clip, constants, "ort"), FP32)
        assert (seen, torch.get_num_threads()) == ([1], 2)
    finally:
        torch.set_num_threads(before)


def test_a_graph_of_other_classes_is_far_from_torch(
    clip: FrozenClip, constants: Constants, images: Any
) -> None:
    moved = Constants(class_vectors=constants.class_vectors[::-1].copy())
    parity, _, _ = ParityCheck(clip, constants, images, None).measure(
        fuse(clip, moved, "ort"), FP32
    )
    assert parity is not None
    assert not parity.holds


Images = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


@pytest.fixture(scope="module")
def model(clip: FrozenClip, constants: Constants) -> onnx.ModelProto:
    return fuse(clip, constants)


def test_batches_of_several_sizes_are_answered_in_order(
    model: onnx.ModelProto, clip: FrozenClip, constants: Constants, images: Images
) -> None:
    many = np.concatenate([images, images[::-1], images])  # 24: batches of 1, 2, 5 and 16
    found = run_graph(open_graph(model), many)
    np.testing.assert_allclose(found, reference_logits(clip, constants, many), atol=1e-4)


def test_bf16_without_cuda_is_not_measured_and_so_refused(
    model: onnx.ModelProto, images: Images
) -> None:
    with pytest.raises(ProviderError, match="bf16 runs on CUDA only"):
        open_graph(rewrite_to(model, "bf16", images), "bf16")


def test_a_cuda_that_does_not_start_is_no_cuda(
    model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    """onnxruntime-gpu lists CUDA without its driver, and runs on the CPU in silence."""

    class Listed:
        def get_available_providers(self) -> list[str]:
            return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    class Fallen:
        def get_providers(self) -> list[str]:
            return ["CPUExecutionProvider"]

    monkeypatch.setattr(export.parity.check, "onnx_runtime", Listed)
    monkeypatch.setattr(export.parity.check, "start", lambda data, chosen: Fallen())
    with pytest.raises(ProviderError, match="bf16"):
        open_graph(model, "bf16")


def test_the_reference_is_open_clip_s_own_forward(
    tiny_clip: Any, images: npt.NDArray[np.uint8]
) -> None:
    clip = tiny_clip(bias=-3.0)
    tokens = clip.tokenize(["a cat", "a dog"])
    with torch.no_grad():
        pixels = clip.normalise(torch.from_numpy(images))
        expected, _ = clip.model.get_logits(pixels, tokens)
        vectors = clip.model.encode_text(tokens, normalize=True).numpy()
    found = reference_logits(
        clip, Constants(class_vectors=vectors), np.concatenate([images] * 5)
    )  # above one batch
    np.testing.assert_allclose(found[: len(images)], expected.numpy(), atol=1e-5)
    np.testing.assert_allclose(found[-len(images) :], found[: len(images)], atol=1e-5)


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

    found = time_ratio(lambda: step("r"), lambda: step("c"), repeats=3, clock=clock)
    assert found == 5.0 / 2.0
    assert order == list(itertools.islice(itertools.cycle("rc"), 8))


def test_a_step_is_plain_json_and_a_line() -> None:
    step = ConversionStep(
        step="int8", size=2_500_000, nodes=7, agreement=0.0, largest=1.0, loss=1.0, speed=3.0
    )
    assert json.loads(json.dumps(step.to_dict()))["loss"] == 1.0
    assert str(step) == (
        "int8: 2.5 MB, same first class on 0.00%, accuracy -100.00 points, 3.00 times as fast as "
        "open_clip here"
    )
