"""Choose the operators and the number types of a graph: what each precision rewrites.

The head always stays in fp32: its last normalisation decides between classes. In int8, the product
over the pixels stays too: few weights, and a large share of the error (docs/ladder.md). In fp16 and
bf16, LayerNormalization and Softmax stay where they are operators of their own (fused ones keep
their sums in fp32 themselves); in fp16 also what some calibration image drives out of its range.
"""

from typing import TYPE_CHECKING, Literal, NamedTuple

from fedprompt.errors import GraphError

if TYPE_CHECKING:
    import onnx

    from export.fold.types import Pictures

Flavour = Literal["ort", "portable"]
Precision = Literal["fp32", "fp16", "bf16", "int8"]
Rewrite = Literal["fp32", "fp16", "bf16", "int8-dynamic", "int8-static"]

# Constant and ConstantOfShape hold numbers that no cast is written for, Resize reads scales in fp32
_EXACT_OPERATORS = ("LayerNormalization", "Softmax", "Constant", "ConstantOfShape", "Resize")


class Recipe(NamedTuple):
    """The operators of a graph and the last rewrite it goes through."""

    flavour: Flavour
    rewrite: Rewrite

    @property
    def precision(self) -> str:
        """Return the precision that the rewrite makes."""
        return self.rewrite.partition("-")[0]

    def __str__(self) -> str:
        return f"{self.rewrite}, {self.flavour} operators"


FP32 = Recipe("ort", "fp32")


def rewrite_to(model: "onnx.ModelProto", rewrite: Rewrite, images: "Pictures") -> "onnx.ModelProto":
    """Return an fp32 graph in another precision.

    Parameters
    ----------
    model
        The graph, which is left as it is.
    rewrite
        What to do.
    images
        Training images, uint8 [images size size 3], that show how large numbers become: none of
        those that the result is measured on.

    Raises
    ------
    GraphError
        There are no images and the rewrite needs some, or ONNX Runtime refuses the graph.
    """
    if rewrite == "fp32":
        return model
    # imported here: this module is also read to define a command
    from export.graph.image_tower import EMBEDDED
    from export.precision.half import overflow_nodes, to_half
    from export.precision.int8 import quantise_dynamically, quantise_statically
    from export.precision.rewrite import centre_pixels, head_nodes, split_attention

    if rewrite in ("fp16", "bf16"):
        model = centre_pixels(model)
        exact = head_nodes(model)
        exact |= {n.output[0] for n in model.graph.node if n.op_type in _EXACT_OPERATORS}
        if rewrite == "fp16":
            exact |= overflow_nodes(model, images)
        return to_half(model, rewrite, exact)
    if rewrite == "int8-static" and not len(images):
        raise GraphError(
            "int8-static needs real training images to see how large numbers become: give --data"
        )
    model = split_attention(model)
    exact = head_nodes(model) | {EMBEDDED}
    if rewrite == "int8-dynamic":
        return quantise_dynamically(model, exact)
    return quantise_statically(model, exact, images)
