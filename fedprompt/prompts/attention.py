"""FedCLIP's attention adapter: which numbers of an image feature count (arXiv 2302.13485)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from fedprompt.types import ImageFeatures


@dataclass(frozen=True, eq=False, kw_only=True)
class FeatureAttention:
    """Weigh a unit image feature z: z' = (a * z) / |a * z|, a = softmax(G tanh(H z + h) + g).

    Attributes
    ----------
    hidden, hidden_bias
        H [joint joint] and h [joint], the first linear layer.
    gate, gate_bias
        G [joint joint] and g [joint], the second.
    """

    hidden: Float[Tensor, "joint joint"]
    hidden_bias: Float[Tensor, " joint"]
    gate: Float[Tensor, "joint joint"]
    gate_bias: Float[Tensor, " joint"]

    def __call__(self, features: ImageFeatures) -> ImageFeatures:
        """Return the weighed features [batch joint], of length one again."""
        hidden = torch.tanh(F.linear(features, self.hidden, self.hidden_bias))
        weights = F.linear(hidden, self.gate, self.gate_bias).softmax(-1)
        return F.normalize(weights * features, dim=-1)
