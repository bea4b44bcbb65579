"""int8 products whose inputs are measured as they come: weights per column, inputs per tensor.

    X W  ~  s_x (X_q - z_x) (W_q S_w),    s_x and z_x of each batch's own range

ONNX Runtime's quantiser, on MatMul alone.
"""

from collections.abc import Collection
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic

from export.precision.quantiser import quantised


def quantise_dynamically(model: onnx.ModelProto, exact: Collection[str]) -> onnx.ModelProto:
    """Return the graph with int8 products; nodes whose first output is in ``exact`` stay.

    Raises
    ------
    GraphError
        ONNX Runtime refuses.
    """
    return quantised(model, exact, _quantise)


def _quantise(model: onnx.ModelProto, path: Path, left: list[str]) -> None:
    quantize_dynamic(
        model,
        path,
        op_types_to_quantize=["MatMul"],
        per_channel=True,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=left,
    )
