from typing import Any

import numpy as np
import onnx

from export.precision.products import separate_products


def test_attention_s_products_come_out_and_nothing_changes(
    fused: onnx.ModelProto, images: Any, run: Any
) -> None:
    before = fused.SerializeToString()
    separate = separate_products(fused)
    assert fused.SerializeToString() == before
    kinds = [node.op_type for node in separate.graph.node]
    assert "Attention" in [node.op_type for node in fused.graph.node]
    assert "Attention" not in kinds
    onnx.checker.check_model(separate, full_check=True)
    # the same products in another order of summation: 2^-24 of logits of 15, some times over
    np.testing.assert_allclose(run(separate, images), run(fused, images), atol=1e-5)


def test_a_graph_without_attention_stays(plain: onnx.ModelProto) -> None:
    assert separate_products(plain).graph.node == plain.graph.node
