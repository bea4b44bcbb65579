"""What a graph is made of besides the CLIP: a folded prompt, as numpy constants."""

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


@dataclass(frozen=True, eq=False, kw_only=True)
class VisualPrompts:
    """Hold the tokens of the image tower's blocks ``first``, ``first`` + 1, ..."""

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
    """Hold a feature adapter: `fedprompt.prompts.attention.FeatureAttention` as arrays."""

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
    """Hold all that a tuned prompt leaves in the graph.

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


def _array(tensor: Tensor) -> npt.NDArray[np.float32]:
    found: npt.NDArray[np.float32] = tensor.detach().float().cpu().numpy()
    return found
