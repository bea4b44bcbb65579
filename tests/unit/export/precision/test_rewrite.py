from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from export.precision.rewrite import centre_pixels, split_attention

TINY = 2.0**-14  # what is smaller is subnormal in fp16


def weight(model: onnx.ModelProto) -> Any:
    (found,) = (t for t in model.graph.initializer if t.name == "patches/weight")
    return numpy_helper.to_array(found)


def error(values: Any) -> float:
    """Return the relative error of rounding to fp16."""
    change = values.astype(np.float16).astype(np.float64) - values
    return float(np.linalg.norm(change) / np.linalg.norm(values))


def test_centred_pixels_give_the_same_answers(
    fused: onnx.ModelProto, images: Any, run: Any
) -> None:
    centred = centre_pixels(fused)
    np.testing.assert_allclose(weight(centred), 128 * weight(fused), rtol=1e-7)
    assert len(centred.graph.node) == len(fused.graph.node) + 2
    np.testing.assert_allclose(run(centred, images), run(fused, images), atol=2e-5)


def test_half_precision_keeps_more_of_the_kernel(fused: onnx.ModelProto) -> None:
    before, after = weight(fused) / 10, weight(centre_pixels(fused)) / 10  # as small as real ones
    assert (np.abs(before) < TINY).mean() > 0.1
    assert (np.abs(after) < TINY).mean() < 0.01
    assert error(after) < error(before) < 1e-2


def test_a_graph_without_a_folded_kernel_stays(fused: onnx.ModelProto) -> None:
    other = onnx.ModelProto()
    other.CopyFrom(fused)
    for tensor in other.graph.initializer:
        tensor.name = tensor.name.replace("patches/weight", "other")
    assert centre_pixels(other) is other


def test_attention_s_products_come_out_and_nothing_changes(
    fused: onnx.ModelProto, images: Any, run: Any
) -> None:
    before = fused.SerializeToString()
    separate = split_attention(fused)
    assert fused.SerializeToString() == before
    kinds = [node.op_type for node in separate.graph.node]
    assert "Attention" in [node.op_type for node in fused.graph.node]
    assert "Attention" not in kinds
    onnx.checker.check_model(separate, full_check=True)
    # the same products in another order of summation: 2^-24 of logits of 15, some times over
    np.testing.assert_allclose(run(separate, images), run(fused, images), atol=1e-5)


def test_a_graph_without_attention_stays(plain: onnx.ModelProto) -> None:
    assert split_attention(plain).graph.node == plain.graph.node
