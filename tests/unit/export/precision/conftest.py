from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from export.fold.constants import Constants
from export.graph.fuse import fuse
from fedprompt.backbone.clip import FrozenClip

Images = npt.NDArray[np.uint8]
Run = Callable[[onnx.ModelProto, Images], Any]


@pytest.fixture(scope="session")
def fused(clip: FrozenClip, constants: Constants) -> onnx.ModelProto:
    return fuse(clip, constants, "ort")


@pytest.fixture(scope="session")
def plain(clip: FrozenClip, constants: Constants) -> onnx.ModelProto:
    return fuse(clip, constants, "portable")


@pytest.fixture(scope="session")
def run() -> Run:
    """Return ONNX Runtime's logits, without any of this package's code."""

    def logits(model: onnx.ModelProto, images: Images) -> Any:
        onnx.checker.check_model(model)
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        return session.run(["logits"], {"images": images})[0]

    return logits


@pytest.fixture
def product() -> tuple[onnx.ModelProto, Any]:
    """Return the product of bytes and a matrix whose columns are of very different size."""
    weight = np.random.default_rng(0).standard_normal((16, 3)) * [1e-3, 1, 1e3]
    tensor = numpy_helper.from_array(weight.astype("f4"), "w")
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["images"], ["x"], name="x/node", to=1),
            helper.make_node("MatMul", ["x", "w"], ["logits"], name="logits/node"),
        ],
        "product",
        [info("images", onnx.TensorProto.UINT8, ["batch", 16])],
        [info("logits", onnx.TensorProto.FLOAT, ["batch", 3])],
        [tensor],
        value_info=[info("x", onnx.TensorProto.FLOAT, ["batch", 16])],
    )
    opsets = [helper.make_opsetid("", 20)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10), weight
