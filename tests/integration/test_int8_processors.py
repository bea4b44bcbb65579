"""An int8 file answers alike where sums of byte products are cut off at 16 bits and where not."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.precision.int8 import quantise_columns
from tests.emulator import AVX2, run_on

RUN = """
import json, sys
import numpy as np
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options)
print(json.dumps(session.run(None, {"x": np.load(sys.argv[2])})[0].tolist()))
"""


def product(folder: Path, values: Any, scale: Any) -> Path:
    """Write x W in bytes, as the exporter's dynamic int8 has it."""
    constants = {"w": values, "zero": np.zeros(len(scale), np.int8), "scale": scale}
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["xq", "xs", "xz"]),
        helper.make_node("MatMulInteger", ["xq", "w", "xz", "zero"], ["sums"]),
        helper.make_node("Cast", ["sums"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["xs", "scale"], ["scales"]),
        helper.make_node("Mul", ["floats", "scales"], ["y"]),
    ]
    shapes = {name: ["rows", len(side)] for name, side in (("x", values), ("y", scale))}
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items())
    parts = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "g", [x], [y], parts)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, folder / "int8.onnx")
    return folder / "int8.onnx"


@pytest.mark.slow
@pytest.mark.parametrize("kept", [True, False])
def test_products_are_right_on_a_processor_with_avx2_alone(tmp_path: Path, kept: bool) -> None:
    """Inputs and weights near their ends; without the rule the same run is far off."""
    rng = np.random.default_rng(0)
    weight = (np.sign(rng.standard_normal((256, 64))) * rng.uniform(0.8, 1, (256, 64))).astype("f4")
    rows = rng.uniform(0.7, 1, (10, 256)).astype("f4")
    values, scale = quantise_columns(weight)
    if not kept:
        scale = np.abs(weight).max(0) / np.float32(127)
        values = np.rint(weight / scale).astype(np.int8)
    np.save(tmp_path / "x.npy", rows)
    path = product(tmp_path, values, scale.astype(np.float32))
    found = np.array(json.loads(run_on(AVX2, RUN, path, tmp_path / "x.npy")))
    assert (np.abs(found - rows @ weight).max() < 2) == kept


VERIFY = """
import sys
from export.runtime import Classifier
from export.parity.verify import verify
found = verify(Classifier(sys.argv[1], threads=1))
found.require()
print(found)
"""


@pytest.mark.slow
def test_an_int8_file_is_verified_on_a_processor_with_avx2_alone(tmp_path: Path) -> None:
    from export.fold.constants import Constants
    from export.parity.compare import probe_images
    from export.precision import Recipe
    from fedprompt.backbone.load import load_backbone
    from fedprompt.prompts.zero_shot import zero_shot_vectors
    from fedprompt.settings.backbone import BackboneConfig
    from tests.classifier_file import write_classifier

    clip = load_backbone(BackboneConfig(name="embedded", device="cpu"))
    classes = ("bag", "coat", "dress", "shirt", "sneaker")
    vectors = zero_shot_vectors(clip, classes, "a photo of a {}.").detach().numpy()
    size = clip.preprocessing.size
    for rewrite in ("int8-dynamic", "int8-static"):
        images = probe_images(1, 16, size)
        written = write_classifier(
            tmp_path / f"{rewrite}.onnx", clip, Constants(class_vectors=vectors), classes,
            images[:0], artefact_sha256="", recipe=Recipe("portable", rewrite),
            calibration=images,
        )  # fmt: skip
        assert "8 images" in run_on(AVX2, VERIFY, written.path)
