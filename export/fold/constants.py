"""What a prompt adds to the graph of its CLIP, as numpy constants, and their checks."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from export.fold.types import Bias, ClassVectors, DomainVectors, Joint, Square, VisualTokens
from fedprompt.backbone.prompts import ImagePrompts
from fedprompt.errors import GraphError
from fedprompt.prompts.attention import FeatureAttention
from fedprompt.prompts.method import Folded

_TOLERANCE = 1e-3  # how far a unit vector's length may be from one


@dataclass(frozen=True, eq=False, kw_only=True)
class VisualPrompts:
    """Tokens of the image tower's blocks ``first``, ``first`` + 1, ..."""

    tokens: VisualTokens
    first: int = 0

    @classmethod
    def of(cls, prompts: ImagePrompts) -> "VisualPrompts":
        """Return the prompts as arrays."""
        return cls(tokens=_array(prompts.tokens), first=prompts.first)

    def on(self, device: torch.device) -> ImagePrompts:
        """Return the prompts as torch's towers take them."""
        return ImagePrompts(tokens=torch.tensor(self.tokens, device=device), first=self.first)


@dataclass(frozen=True, eq=False, kw_only=True)
class Adapter:
    """A feature adapter: `fedprompt.prompts.attention.FeatureAttention` as arrays."""

    hidden: Square
    hidden_bias: Joint
    gate: Square
    gate_bias: Joint

    @classmethod
    def of(cls, attention: FeatureAttention) -> "Adapter":
        """Return the adapter as arrays."""
        return cls(**{f.name: _array(getattr(attention, f.name)) for f in fields(cls)})

    def on(self, device: torch.device) -> FeatureAttention:
        """Return the adapter as torch computes it."""
        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        return FeatureAttention(
            **{name: torch.tensor(array, device=device) for name, array in parts.items()}
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Constants:
    """All that a tuned prompt leaves in the graph.

    The fields are those of `fedprompt.prompts.method.Folded`, which has the equation.
    """

    class_vectors: ClassVectors
    visual: VisualPrompts | None = None
    bias: Bias | None = None
    adapter: Adapter | None = None
    mixture: DomainVectors | None = None

    @classmethod
    def of(cls, folded: Folded) -> "Constants":
        """Return the constants of a folded prompt.

        Raises
        ------
        GraphError
            It has a part that no graph is written for.
        """
        known = {field.name for field in fields(cls)}
        parts = {f.name for f in fields(folded) if getattr(folded, f.name) is not None} - known
        if parts:
            raise GraphError(
                f"the prompt folds to {', '.join(sorted(parts))}, which the exporter does not "
                "write; export a prompt of another method of `fedprompt methods`"
            )
        return cls(
            class_vectors=_array(folded.class_vectors),
            visual=None if folded.visual is None else VisualPrompts.of(folded.visual),
            bias=None if folded.bias is None else _array(folded.bias),
            adapter=None if folded.adapter is None else Adapter.of(folded.adapter),
            mixture=None if folded.mixture is None else _array(folded.mixture),
        )

    def prompts(self, device: torch.device) -> ImagePrompts | None:
        """Return the visual prompts, if any, as torch's towers take them."""
        return None if self.visual is None else self.visual.on(device)

    def describe(self) -> dict[str, Any]:
        """Return the shapes, as plain JSON values, for the file's metadata."""
        described: dict[str, Any] = {"class_vectors": list(self.class_vectors.shape)}
        if self.visual is not None:
            described["visual_prompts"] = list(self.visual.tokens.shape)
            described["first_layer"] = self.visual.first
        described |= {"bias": True} if self.bias is not None else {}
        described |= {"adapter": True} if self.adapter is not None else {}
        described |= {"domains": len(self.mixture)} if self.mixture is not None else {}
        return described


def validate_constants(constants: Constants) -> None:
    """Check shapes, lengths and numbers of all constants.

    Raises
    ------
    GraphError
        Says which constant is wrong, what it is and what was expected.
    """
    vectors = constants.class_vectors
    _check_vectors("class vectors", vectors, "classes joint", unit=constants.bias is None)
    classes, joint = vectors.shape
    if constants.bias is not None:
        _check_array("bias", constants.bias, (classes,))
    if constants.adapter is not None:
        for field in fields(constants.adapter):
            array = getattr(constants.adapter, field.name)
            square = not field.name.endswith("_bias")
            _check_array(f"adapter's {field.name}", array, (joint, joint) if square else (joint,))
    _check_visual(constants)
    if constants.mixture is not None:
        _check_mixture(constants, constants.mixture)


def _check_vectors(
    what: str, vectors: npt.NDArray[np.float32], shape: str, *, unit: bool = True
) -> None:
    sizes = "no vectors"
    if vectors.ndim == len(shape.split()) and vectors.size:
        lengths = np.linalg.norm(vectors, axis=-1)
        if np.isfinite(lengths).all() and (not unit or np.allclose(lengths, 1, atol=_TOLERANCE)):
            return
        sizes = f"lengths from {lengths.min():.3g} to {lengths.max():.3g}"
    raise GraphError(
        f"the {what} have shape {list(vectors.shape)} and {sizes}; expected [{shape}], each "
        + ("of length 1" if unit else "finite")
    )


def _check_array(what: str, array: npt.NDArray[np.float32], shape: tuple[int, ...]) -> None:
    if array.shape != shape or not np.isfinite(array).all():
        raise GraphError(
            f"the {what} has shape {list(array.shape)}; expected finite numbers {list(shape)}"
        )


def _check_visual(constants: Constants) -> None:
    if (visual := constants.visual) is None:
        return
    tokens = visual.tokens
    if tokens.ndim != 3 or not tokens.size or not np.isfinite(tokens).all() or visual.first < 0:
        raise GraphError(
            f"the visual prompts have shape {list(tokens.shape)} and enter at block "
            f"{visual.first}; expected finite numbers [layers length width] from block 0 or later"
        )


def _check_mixture(constants: Constants, mixture: npt.NDArray[np.float32]) -> None:
    _check_vectors("domains' class vectors", mixture, "domains classes joint")
    visual, expected = constants.visual, constants.class_vectors.shape
    fits = visual is not None and visual.first == 0 and visual.tokens.shape[:2] == (1, len(mixture))
    if not fits or mixture.shape[1:] != expected:
        tokens = "none" if visual is None else f"{list(visual.tokens.shape)} from {visual.first}"
        raise GraphError(
            f"the domains' class vectors have shape {list(mixture.shape)} and the visual prompts "
            f"are {tokens}; expected [domains, {expected[0]}, {expected[1]}] and one matrix that "
            "enters at block 0, a token for each domain"
        )


def _array(tensor: Tensor) -> npt.NDArray[np.float32]:
    array: npt.NDArray[np.float32] = tensor.detach().float().cpu().numpy()
    return array
