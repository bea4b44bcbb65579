"""What is exported answers alike in runtimes that have nothing to do with ONNX Runtime."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
import openvino
import pytest
from onnx.reference import ReferenceEvaluator

from export.fold.constants import Constants
from export.fold.load import RealImages, fold, real_images
from export.graph.fuse import fuse
from export.parity.check import reference_logits
from export.parity.compare import compare
from export.precision import Flavour, Rewrite, rewrite_to
from fedprompt.backbone.clip import FrozenClip
from fedprompt.backbone.load import load_backbone
from fedprompt.data.fashion_mnist import CLASSES
from fedprompt.prompts.template import zero_shot_vectors
from fedprompt.settings.backbone import BackboneConfig
from tests.prompts import tuned

IMAGES = 32
Logits = npt.NDArray[np.float32]
Run = Callable[[onnx.ModelProto, npt.NDArray[np.uint8]], Logits]


class Job(NamedTuple):
    """Hold a CLIP, what is folded into its graph, and torch's answers to real images."""

    clip: FrozenClip
    constants: Constants
    real: RealImages
    expected: Logits

    def graph(self, flavour: Flavour, rewrite: Rewrite) -> onnx.ModelProto:
        plain = fuse(self.clip, self.constants, flavour)
        return rewrite_to(plain, rewrite, self.real.calibration)


@pytest.fixture(scope="module")
def job() -> Job:
    """Return the embedded backbone with its template's classes."""
    clip = load_backbone(BackboneConfig(name="embedded", device="cpu"))
    vectors = zero_shot_vectors(clip, CLASSES, "a photo of a {}.").detach().numpy()
    return _job(clip, Constants(class_vectors=vectors))


def _job(clip: FrozenClip, constants: Constants) -> Job:
    real = real_images({}, IMAGES, clip.preprocessing, CLASSES)
    return Job(clip, constants, real, reference_logits(clip, constants, real.pictures))


def in_openvino(model: onnx.ModelProto, images: npt.NDArray[np.uint8]) -> Logits:
    core = openvino.Core()
    # by itself it computes in bf16 where the CPU can
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    network = core.compile_model(core.read_model(model.SerializeToString()), "CPU", exact)
    return np.asarray(network({"images": images})["logits"])


def in_the_reference(model: onnx.ModelProto, images: npt.NDArray[np.uint8]) -> Logits:
    (logits,) = ReferenceEvaluator(model).run(["logits"], {"images": images})
    return np.asarray(logits)


@pytest.mark.parametrize("batch", [1, IMAGES])
@pytest.mark.parametrize("flavour", ["portable", "ort"])
def test_openvino_agrees_with_torch(job: Job, flavour: Flavour, batch: int) -> None:
    """OpenVINO knows ONNX Runtime's fused operators too."""
    _agree(job, in_openvino, job.graph(flavour, "fp32"), batch)


def test_the_reference_evaluator_agrees_with_torch(job: Job) -> None:
    _agree(job, in_the_reference, job.graph("portable", "fp32"), 8)


def _agree(job: Job, run: Run, model: onnx.ModelProto, batch: int) -> None:
    found, expected = run(model, job.real.pictures[:batch]), job.expected[:batch]
    assert found.shape == (batch, len(CLASSES))
    parity = compare(found, expected, "fp32", None)
    assert parity.holds, str(parity)


@pytest.mark.parametrize("run", [in_openvino, in_the_reference])
@pytest.mark.parametrize("rewrite", ["fp16", "int8-dynamic", "int8-static"])
def test_short_numbers_are_near_in_both(job: Job, run: Run, rewrite: Rewrite) -> None:
    """Within what ONNX Runtime is allowed to differ by, for the same graph."""
    model = job.graph("portable", rewrite)
    found, expected = run(model, job.real.pictures[:8]), job.expected[:8]
    parity = compare(found, expected, rewrite.partition("-")[0], None)
    assert parity.largest <= parity.logit_bound, str(parity)


@pytest.mark.parametrize("method", ["vpt", "maple", "fedclip"])
def test_prompts_inside_the_graph_agree_in_both(job: Job, method: str) -> None:
    """Visual prompts as constants of every block, and an adapter behind the tower."""
    moved = _job(job.clip, fold(tuned(job.clip, method, classes=CLASSES), job.clip))
    assert np.abs(moved.expected - job.expected).max() > 0.1
    model = moved.graph("portable", "fp32")
    _agree(moved, in_openvino, model, IMAGES)
    _agree(moved, in_the_reference, model, 4)


def test_a_changed_weight_is_seen(job: Job) -> None:
    """The comparison can fail."""
    model: Any = job.graph("portable", "fp32")
    largest = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    weights = onnx.numpy_helper.to_array(largest) * np.float32(1.01)
    largest.CopyFrom(onnx.numpy_helper.from_array(weights, largest.name))
    with pytest.raises(AssertionError):
        _agree(job, in_openvino, model, 8)
