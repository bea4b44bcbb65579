"""What every prompt method offers, whatever its host, form and objective."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from fedprompt.backbone.encoded import Encoded, EncodedImages
from fedprompt.backbone.precision import full_precision
from fedprompt.backbone.prompts import ImagePrompts
from fedprompt.errors import PromptError
from fedprompt.prompt_state import PromptState, right
from fedprompt.prompts.attention import FeatureAttention
from fedprompt.prompts.forms import FreshBasis
from fedprompt.types import DomainVectors, ImageFeatures, Labels, Logits, TextFeatures


@dataclass(frozen=True, eq=False, kw_only=True)
class Answer:
    """Hold what a method makes of a batch: logits and the unit features behind them."""

    logits: Logits
    features: ImageFeatures  # of the images, under the prompts
    vectors: TextFeatures  # of the classes


@dataclass(frozen=True, eq=False, kw_only=True)
class Folded:
    """Hold what a tuned prompt folds to: the constants of the deployed graph.

    logits = scale * a(z) C' + b (and the CLIP's own bias, where it has one), with z the image
    feature of length one and C = ``class_vectors``.

    Attributes
    ----------
    class_vectors
        [classes joint], of length one; with a ``bias`` they are a linear probe's, of any length.
    visual
        Prompts of the image tower; None leaves it alone.
    bias
        b [classes], added to the logits; None = none.
    adapter
        a, which takes z to another feature of length one (FedCLIP); None leaves z alone.
    mixture
        Class vectors of each domain, of length one (ADAPT). ``visual`` then is one matrix that
        enters at block 0, a token a domain in the same order, and each image mixes the domains:
        w_i = mean over heads of softmax_i(q . k_i / sqrt(head width)), where q is the class
        token's query in the last block and k_i the key of token i there; the class vectors of the
        image are sum_i w_i mixture_i, made of length one again, and ``class_vectors`` is not read.
    """

    class_vectors: TextFeatures
    visual: ImagePrompts | None = None
    bias: Float[Tensor, " classes"] | None = None
    adapter: FeatureAttention | None = None
    mixture: DomainVectors | None = None


class PromptMethod(Protocol):
    """Own the trained tensors, say how they enter CLIP and how they fold away.

    ``first_layer`` is the first block of the image tower that a prompt enters; None = none does,
    and the images' features are all that is needed of them.
    """

    first_layer: int | None

    def parameters(self) -> Any:
        """Return the trained tensors, for an optimiser."""

    def arrays(self) -> PromptState:
        """Return what travels: named float32 arrays."""

    def leaving(self) -> PromptState:
        """Return what a site sends: all of them, unless some are of other sites' domains.

        Of a matrix under rule ``fresh-basis`` it is the round's update B [rank width] alone.
        """

    def load_arrays(self, arrays: PromptState) -> None:
        """Take what travelled; PromptError when names or shapes differ."""

    def frozen_arrays(self) -> PromptState:
        """Return what else an artefact needs: frozen starts."""

    def load_frozen(self, arrays: PromptState) -> None:
        """Take the frozen arrays of an artefact; PromptError when names or shapes differ."""

    def backward(self, images: Encoded, labels: Labels, generator: torch.Generator | None) -> float:
        """Add the objective's gradients of a batch and return its mean cross-entropy, nats."""

    def predict(self, images: EncodedImages) -> Logits:
        """Return logits [images classes]."""

    def fold(self) -> Folded:
        """Return what is deployed, computed by the plain towers."""

    def halve_chunk(self) -> bool:
        """Compute half as much at a time from now on; False if that is not possible."""

    def penalty(self) -> Tensor:
        """Return the prompt's own loss term, a scalar."""

    def information_density(self) -> float:
        """Return the mean ID_k of the prompt matrices, or 1 where nothing is trained."""

    def describe(self) -> dict[str, Any]:
        """Return method, host, form and all that rebuilds it, for records and artefacts."""


def cosine_logits(features: ImageFeatures, vectors: TextFeatures, scale: float) -> Logits:
    """Return scale * cos(image, class) of unit vectors, in float32 at least whatever the autocast.

    bf16 would round logits near 30 to steps of 0.125.
    """
    with torch.autocast(features.device.type, enabled=False):
        logits: Tensor = scale * full_precision(features) @ full_precision(vectors).T
        return logits


def cross_entropy(logits: Logits, labels: Labels) -> Tensor:
    """Return the mean cross-entropy, a scalar in nats."""
    return F.cross_entropy(logits, labels)


def module_arrays(module: nn.Module) -> PromptState:
    """Return what a module's prompts are, as float32 arrays by name: all but frozen starts."""
    folded = {name: part.fold() for name, part in _fresh(module).items()}
    held = _held(module)
    return PromptState({name: _array(folded.get(name, held[name])) for name in held})


def load_module_arrays(module: nn.Module, arrays: PromptState) -> None:
    """Copy arrays into a module's prompts; a basis' update starts at zero again.

    Raises
    ------
    PromptError
        A name is missing or unknown, or a shape differs; nothing is changed then.
    """
    _copy(_held(module), arrays)
    with torch.no_grad():
        for part in _fresh(module).values():
            part.B.zero_()


def module_leaving(module: nn.Module) -> PromptState:
    """Return a module's trained tensors as float32 arrays: all, and of a fresh basis B alone."""
    trained = {n: tensor for n, tensor in _named(module).items() if tensor.requires_grad}
    return PromptState({name: _array(tensor) for name, tensor in trained.items()})


def module_buffers(module: nn.Module) -> PromptState:
    """Return a module's frozen tensors as float32 arrays, by name."""
    return PromptState({name: _array(buffer) for name, buffer in module.named_buffers()})


def load_module_buffers(module: nn.Module, arrays: PromptState) -> None:
    """Copy arrays into a module's frozen tensors; refuse as `load_module_arrays` does."""
    _copy(dict(module.named_buffers()), arrays)


def _named(module: nn.Module) -> dict[str, Tensor]:
    return {name.removesuffix(".matrix"): tensor for name, tensor in module.named_parameters()}


def _fresh(module: nn.Module) -> dict[str, FreshBasis]:
    parts = module.named_modules()
    return {name: part for name, part in parts if isinstance(part, FreshBasis)}


def _held(module: nn.Module) -> dict[str, Tensor]:
    """Return all parameters but what a fresh basis trains, which is part of its matrix."""
    updates = {right(name) for name in _fresh(module)}
    return {name: tensor for name, tensor in _named(module).items() if name not in updates}


def _array(tensor: Tensor) -> npt.NDArray[np.float32]:
    found: npt.NDArray[np.float32] = tensor.detach().float().cpu().numpy()
    return found


def _copy(own: dict[str, Tensor], arrays: PromptState) -> None:
    found = {name: tuple(array.shape) for name, array in arrays.items()}
    expected = {name: tuple(tensor.shape) for name, tensor in own.items()}
    if found != expected:
        raise PromptError(f"the prompt's arrays are {found}, expected {expected}")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(torch.from_numpy(np.array(arrays[name])))  # a copy: torch wants to write
