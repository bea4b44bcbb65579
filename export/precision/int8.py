"""Products of bytes, by ONNX Runtime's quantiser, on MatMul alone.

Dynamic: a batch's own range gives s_x and z_x.

    X W  ~  s_x (X_q - z_x) (W_q S_w)

Static: the ranges of inputs were seen on calibration images. A runtime makes one int8 product of
each such group. Zero points are 0, as TensorRT asks.

    X W  ~  dq(q(X)) dq(q(W)),    q(x) = clip(round(x / s)),    dq(q) = s q

Weights are such that no processor's product overflows. x86 processors with AVX2 and without VNNI
multiply bytes by `vpmaddubsw`: an input of 0 ... 255 by a weight, two neighbours of a column at a
time, their sum cut off at 16 bits,

    255 (w_k + w_k+1) > 32767    or    < -32768

ONNX Runtime then computes wrong numbers without a warning. So a column's scale is such that no two
neighbours of one sign reach the limit: max over k of (w_k + w_k+1) / s = 127. Most columns have one
large weight beside small ones and lose a fraction of a bit. Halving the range of every weight
(reduce_range) lost 0.60 points on 2,000 Fashion-MNIST images with the embedded CLIP where this lost
0.20, as many as bytes without the rule.
"""

import contextlib
import logging
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

from export.fold.types import Pictures
from fedprompt.errors import GraphError

_BATCH = 8  # calibration images at a time
_STATIC_OPTIONS = {
    "ActivationSymmetric": True,
    "WeightSymmetric": True,
    "MatMulConstBOnly": True,  # attention's own products stay
    # one scale for all columns of a product's result would lose the small ones
    "OpTypesToExcludeOutputQuantization": ["MatMul"],
}
_STEPS = 127  # of the larger of two neighbours' sums; rounding adds 1, and 255 * 128 < 32768
_TRANSPOSED = re.compile(r"_Transposed(_\d+)?$")
_QUANTISED, _SCALE = "_quantized", "_scale"  # ONNX Runtime's names


def quantise_dynamically(model: onnx.ModelProto, exact: Collection[str]) -> onnx.ModelProto:
    """Return the graph with int8 products; nodes whose first output is in ``exact`` stay.

    Raises
    ------
    GraphError
        ONNX Runtime refuses.
    """

    def quantise(plain: onnx.ModelProto, path: Path, excluded: list[str]) -> None:
        quantize_dynamic(
            plain,
            path,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=excluded,
        )

    return _quantised(model, exact, quantise)


def quantise_statically(
    model: onnx.ModelProto, exact: Collection[str], images: Pictures
) -> onnx.ModelProto:
    """Return the graph with int8 products fitted to images, uint8 [images size size 3].

    Nodes whose first output is in ``exact`` stay.

    Raises
    ------
    GraphError
        ONNX Runtime refuses.
    """

    def quantise(plain: onnx.ModelProto, path: Path, excluded: list[str]) -> None:
        quantize_static(
            plain,
            path,
            _CalibrationImages(images),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            nodes_to_exclude=excluded,
            extra_options=_STATIC_OPTIONS,
        )

    return _quantised(model, exact, quantise)


class _CalibrationImages(CalibrationDataReader):  # type: ignore[misc] # the library has no types
    def __init__(self, images: Pictures) -> None:
        self._batches = iter(images[i : i + _BATCH] for i in range(0, len(images), _BATCH))

    def get_next(self) -> dict[str, Any] | None:
        """Return the next batch, or None behind the last."""
        batch = next(self._batches, None)
        return None if batch is None else {"images": batch}


def _quantised(
    model: onnx.ModelProto,
    exact: Collection[str],
    quantise: Callable[[onnx.ModelProto, Path, list[str]], None],
) -> onnx.ModelProto:
    """Return the graph that ``quantise`` writes to a file, its weights within range."""
    excluded = [node.name for node in model.graph.node if node.output[0] in exact]
    with TemporaryDirectory() as folder, _without_advice():
        path = Path(folder) / "int8.onnx"
        try:
            quantise(deepcopy(model), path, excluded)  # it moves the model's tensors into a file
        except Exception as error:  # ONNX Runtime raises a dozen unrelated types
            reason = " ".join(str(error).split())[:300]
            raise GraphError(f"ONNX Runtime could not quantise the graph: {reason}") from None
        quantised = onnx.load(path)
    _keep_pairs_in_range(quantised, model)
    return quantised


@contextlib.contextmanager
def _without_advice() -> Iterator[None]:
    """Silence the advice to optimise the graph first, which the root logger prints."""
    root, silence = logging.getLogger(), logging.NullHandler()
    level = root.level
    root.addHandler(silence)  # else the library's first line adds a handler for good
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
        root.removeHandler(silence)


def _keep_pairs_in_range(model: onnx.ModelProto, plain: onnx.ModelProto) -> None:
    """Quantise the weights [in out] of an int8 graph anew, from those of its plain graph."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    weights = {tensor.name: tensor for tensor in plain.graph.initializer}
    for name, tensor in constants.items():
        if not name.endswith(_QUANTISED) or tensor.data_type != TensorProto.INT8:
            continue
        original = name.removesuffix(_QUANTISED)
        scale = constants[original + _SCALE]
        values, steps = quantise_columns(_weight(original, weights))
        tensor.CopyFrom(numpy_helper.from_array(values, name))
        scale.CopyFrom(numpy_helper.from_array(steps, scale.name))


def _weight(name: str, weights: Mapping[str, onnx.TensorProto]) -> npt.NDArray[np.float32]:
    """Return a weight [in out]; the quantiser gives a Gemm's [out in] a name of its own."""
    if name in weights:
        return numpy_helper.to_array(weights[name])
    original = _TRANSPOSED.sub("", name)
    return np.ascontiguousarray(numpy_helper.to_array(weights[original]).T)


def quantise_columns(
    weight: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Return bytes [in out] and the scale [out] of each column, weight ~ bytes * scale."""
    largest = np.abs(weight).max(0)
    for sign in (1, -1):
        part = np.maximum(sign * weight.astype(np.float64), 0)
        largest = np.maximum(largest, (part[1:] + part[:-1]).max(0, initial=0))
    scale = np.where(largest > 0, largest / _STEPS, 1).astype(np.float32)
    scale = np.maximum(scale, np.finfo(np.float32).tiny)
    steps = np.rint(weight / scale.astype(np.float64))
    return np.clip(steps, -_STEPS, _STEPS).astype(np.int8), scale
