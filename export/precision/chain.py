"""Which rewrites make a precision, and what each leaves in fp32.

Always in fp32: the head, whose last normalisation decides between classes. In int8 also the product
over the pixels: few weights, and a large share of the error (docs/ladder.md). In fp16 and bf16 also
LayerNormalization and Softmax where they are operators of their own (fused ones keep their sums in
fp32 themselves); in fp16 what some calibration image drives out of its range.
"""

from collections.abc import Callable

import onnx

from export.fold.types import Pictures
from export.graph.patch_embedding import EMBEDDED
from export.precision.half import KINDS, to_half
from export.precision.int8_dynamic import quantise_dynamically
from export.precision.int8_static import quantise_statically
from export.precision.pixels import centre_pixels
from export.precision.products import separate_products
from export.precision.ranges import overflowing
from export.precision.rewriting import head_of
from export.targets import Rewrite
from fedprompt.errors import GraphError

# Constant and ConstantOfShape hold numbers that no cast is written for, Resize reads scales in fp32
_EXACT_OPERATORS = ("LayerNormalization", "Softmax", "Constant", "ConstantOfShape", "Resize")


def rewrite_to(model: onnx.ModelProto, rewrite: Rewrite, images: Pictures) -> onnx.ModelProto:
    """Return an fp32 graph in another precision.

    ``images``, uint8 [images size size 3], are real ones for the ranges of tensors; none of those
    that the result is measured on.

    Raises
    ------
    GraphError
        There are no images, and the rewrite needs some; or ONNX Runtime refuses the graph.
    """
    if rewrite in _NEED_IMAGES and not len(images):
        raise GraphError(
            f"{rewrite} needs real training images to see how large numbers become: give --data"
        )
    return REWRITES[rewrite](model, images)


def _fp32(model: onnx.ModelProto, images: Pictures) -> onnx.ModelProto:  # noqa: ARG001
    return model


def _fp16(model: onnx.ModelProto, images: Pictures) -> onnx.ModelProto:
    model = centre_pixels(model)
    return to_half(model, KINDS["fp16"], _sensitive(model) | overflowing(model, images))


def _bf16(model: onnx.ModelProto, images: Pictures) -> onnx.ModelProto:  # noqa: ARG001
    model = centre_pixels(model)
    return to_half(model, KINDS["bf16"], _sensitive(model))


def _int8_dynamic(model: onnx.ModelProto, images: Pictures) -> onnx.ModelProto:  # noqa: ARG001
    model = separate_products(model)
    return quantise_dynamically(model, _head(model) | {EMBEDDED})


def _int8_static(model: onnx.ModelProto, images: Pictures) -> onnx.ModelProto:
    model = separate_products(model)
    return quantise_statically(model, _head(model) | {EMBEDDED}, images)


def _head(model: onnx.ModelProto) -> set[str]:
    return {node.output[0] for node in head_of(model)}


def _sensitive(model: onnx.ModelProto) -> set[str]:
    alone = {n.output[0] for n in model.graph.node if n.op_type in _EXACT_OPERATORS}
    return alone | _head(model)


REWRITES: dict[Rewrite, Callable[[onnx.ModelProto, Pictures], onnx.ModelProto]] = {
    "fp32": _fp32,
    "fp16": _fp16,
    "bf16": _bf16,
    "int8-dynamic": _int8_dynamic,
    "int8-static": _int8_static,
}
_NEED_IMAGES = ("int8-static",)
