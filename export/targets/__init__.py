"""What can be exported for where: operators, precisions and rewrites of each target."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from fedprompt.errors import ConfigError

Flavour = Literal["ort", "portable"]
Precision = Literal["fp32", "fp16", "bf16", "int8"]
Rewrite = Literal["fp32", "fp16", "bf16", "int8-dynamic", "int8-static"]


class Recipe(NamedTuple):
    """Name the operators of a graph and the last rewrite it goes through."""

    flavour: Flavour
    rewrite: Rewrite

    @property
    def precision(self) -> str:
        """Return the precision that the rewrite makes."""
        return self.rewrite.partition("-")[0]


FP32 = Recipe("ort", "fp32")


@dataclass(frozen=True, kw_only=True)
class Target:
    """Hold the precisions that a target's runtime has kernels for.

    Attributes
    ----------
    recipes
        How each precision is made.
    output
        What is written where nobody says it: a file, or a folder.
    """

    recipes: Mapping[Precision, Recipe]
    output: str = "classifier.onnx"


# A CPU has no bf16 kernels in ONNX Runtime. It runs standard operators faster than the fused ones:
# SkipLayerNormalization takes it longer than the sums and the LayerNormalization it stands for. Its
# int8 is dynamic because that was faster and closer to torch (docs/ladder.md). int8 on a GPU is
# TensorRT's, which takes QuantizeLinear pairs among standard operators only.
TARGETS: dict[str, Target] = {
    "cpu": Target(
        recipes={
            "fp32": Recipe("portable", "fp32"),
            "fp16": Recipe("portable", "fp16"),
            "int8": Recipe("portable", "int8-dynamic"),
        }
    ),
    "gpu": Target(
        recipes={
            "fp32": Recipe("ort", "fp32"),
            "fp16": Recipe("ort", "fp16"),
            "bf16": Recipe("ort", "bf16"),
            "int8": Recipe("portable", "int8-static"),
        }
    ),
    "triton": Target(  # portable, so that TensorRT can compile it (--tensorrt)
        recipes={
            "fp32": Recipe("portable", "fp32"),
            "fp16": Recipe("portable", "fp16"),
            "int8": Recipe("portable", "int8-static"),
        },
        output="classifier",
    ),
    "web": Target(  # the page was tested in fp32 alone
        recipes={"fp32": Recipe("portable", "fp32")}, output="page"
    ),
}


def recipe_of(target: str, precision: Precision) -> Recipe:
    """Return how a precision is made for a target.

    Raises
    ------
    ConfigError
        There is no such target, or its runtime has no kernels for the precision.
    """
    if target not in TARGETS:
        raise ConfigError(f"target {target!r} is unknown; expected one of {', '.join(TARGETS)}")
    recipes = TARGETS[target].recipes
    if precision not in recipes:
        raise ConfigError(
            f"target {target} has no {precision}: its runtime has no kernels for it; expected one "
            f"of {', '.join(recipes)}"
        )
    return recipes[precision]
