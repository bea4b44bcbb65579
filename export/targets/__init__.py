"""What can be exported for where: operators, precisions, rewrites and files of each target."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from export.precision import Precision, Recipe
from export.targets.triton import write_repository
from export.targets.web import write_page
from fedprompt.errors import ConfigError
from fedprompt.storage import write_atomic

# writes a classifier's bytes at a place; returns the classifier's path, and a line for people
Write = Callable[[Path, bytes], tuple[Path, str]]


def write_file(path: Path, data: bytes) -> tuple[Path, str]:
    """Write one ONNX file."""
    write_atomic(path, data)
    return path, ""


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where a classifier runs: the precisions that its runtime has kernels for, and its files.

    Attributes
    ----------
    recipes
        How each precision is made.
    output
        The file or folder that is written by default.
    write
        Writes it.
    """

    recipes: Mapping[Precision, Recipe]
    output: str = "classifier.onnx"
    write: Write = write_file

    @property
    def is_folder(self) -> bool:
        """Whether the output is a folder."""
        return self.write is not write_file


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
        write=write_repository,
    ),
    "web": Target(  # the page was tested in fp32 alone
        recipes={"fp32": Recipe("portable", "fp32")}, output="page", write=write_page
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
