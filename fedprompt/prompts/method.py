"""What every prompt method offers, whatever its host and form."""

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fedprompt.errors import PromptError
from fedprompt.types import TextFeatures

Arrays = dict[str, npt.NDArray[np.float32]]


class PromptMethod(Protocol):
    """Own the trained tensors, say how they enter CLIP and how they fold away."""

    def parameters(self) -> Any:
        """Return the trained tensors, for an optimiser."""

    def arrays(self) -> Arrays:
        """Return what travels: named float32 arrays."""

    def load_arrays(self, arrays: Arrays) -> None:
        """Take what travelled; PromptError when names or shapes differ."""

    def frozen_arrays(self) -> Arrays:
        """Return what else an artefact needs: frozen starts."""

    def class_vectors(self, generator: torch.Generator | None = None) -> TextFeatures:
        """Return unit class vectors [classes joint]; with a generator, as in training."""

    def fold(self) -> TextFeatures:
        """Return unit class vectors [classes joint] from the plain tower, for export."""

    def penalty(self) -> Tensor:
        """Return the method's own loss term, a scalar."""

    def information_density(self) -> float:
        """Return ID_k of the prompt, or 1 where nothing is trained."""

    def describe(self) -> dict[str, Any]:
        """Return method, host, form, rank, tokens for records and artefacts."""


def module_arrays(module: nn.Module) -> Arrays:
    """Return a module's trained tensors as float32 arrays, by name."""
    return {
        name.removesuffix(".matrix"): parameter.detach().float().cpu().numpy().copy()
        for name, parameter in module.named_parameters()
    }


def load_module_arrays(module: nn.Module, arrays: Arrays) -> None:
    """Copy arrays into a module's trained tensors.

    Raises
    ------
    PromptError
        A name is missing or unknown, or a shape differs; nothing is changed then.
    """
    own = {name.removesuffix(".matrix"): tensor for name, tensor in module.named_parameters()}
    found = {name: tuple(array.shape) for name, array in arrays.items()}
    expected = {name: tuple(tensor.shape) for name, tensor in own.items()}
    if found != expected:
        raise PromptError(f"the prompt's arrays are {found}, expected {expected}")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(torch.from_numpy(np.array(arrays[name])))  # a copy: torch wants to write
