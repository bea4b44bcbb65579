"""Weights of eight bits that no processor's product overflows on.

x86 processors with AVX2 and without VNNI multiply bytes by `vpmaddubsw`: an input of 0 ... 255 by a
weight, two neighbours of a column at a time, their sum cut off at 16 bits,

    255 (w_k + w_k+1) > 32767    or    < -32768

ONNX Runtime computes wrong numbers there without a word. So a column's scale is such that no two
neighbours of one sign reach it: max over k of (w_k + w_k+1) / s = 127. Most columns have one large
weight beside small ones and lose a fraction of a bit. Halving the range of every weight
(reduce_range) lost 0.60 points on 2,000 Fashion-MNIST images with the embedded CLIP where this lost
0.20, as many as bytes without the rule.
"""

import re
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper

_STEPS = 127  # of the larger of two neighbours' sums; rounding adds 1, and 255 * 128 < 32768
_TRANSPOSED = re.compile(r"_Transposed(_\d+)?$")
_QUANTISED, _SCALE = "_quantized", "_scale"  # as ONNX Runtime's quantiser calls them


def keep_pairs_in_range(model: onnx.ModelProto, plain: onnx.ModelProto) -> None:
    """Quantise the weights [in out] of an int8 graph anew, from those of its plain graph."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    weights = {tensor.name: tensor for tensor in plain.graph.initializer}
    for name, tensor in constants.items():
        if not name.endswith(_QUANTISED) or tensor.data_type != TensorProto.INT8:
            continue
        own = name.removesuffix(_QUANTISED)
        scale = constants[own + _SCALE]
        values, steps = quantise_columns(_weight(own, weights))
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
