"""int8 products whose inputs' ranges were seen on calibration images.

    X W  ~  dq(q(X)) dq(q(W)),    q(x) = clip(round(x / s)),    dq(q) = s q

A runtime makes one int8 product of each such group. Zero points are 0, as TensorRT asks. ONNX
Runtime's quantiser, on MatMul alone.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from export.fold.types import Pictures
from export.precision.quantiser import quantised

_BATCH = 8
_OPTIONS = {
    "ActivationSymmetric": True,
    "WeightSymmetric": True,
    "MatMulConstBOnly": True,  # attention's own products stay
    # one scale for all columns of a product's result would lose the small ones
    "OpTypesToExcludeOutputQuantization": ["MatMul"],
}


def quantise_statically(
    model: onnx.ModelProto, exact: Collection[str], images: Pictures
) -> onnx.ModelProto:
    """Return the graph with int8 products; nodes whose first output is in ``exact`` stay.

    Raises
    ------
    GraphError
        ONNX Runtime refuses.
    """

    def quantise(model: onnx.ModelProto, path: Path, left: list[str]) -> None:
        quantize_static(
            model,
            path,
            _Reader(images),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            nodes_to_exclude=left,
            extra_options=_OPTIONS,
        )

    return quantised(model, exact, quantise)


class _Reader(CalibrationDataReader):  # type: ignore[misc] # the library has no types
    """Hand out calibration images in batches."""

    def __init__(self, images: Pictures) -> None:
        self._parts = iter(images[i : i + _BATCH] for i in range(0, len(images), _BATCH))

    def get_next(self) -> dict[str, Any] | None:
        """Return the next batch, or None behind the last."""
        part = next(self._parts, None)
        return None if part is None else {"images": part}
