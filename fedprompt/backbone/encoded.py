"""What of some images is computed once, because no prompt can change it (design.md, fact 3)."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from fedprompt.types import Activations, ImageFeatures


@runtime_checkable
class Rows(Protocol):
    """Give the activations of chosen images, kept or computed when they are asked for."""

    def __getitem__(self, chosen: Tensor) -> Activations:
        """Return the activations [chosen tokens width] on the backbone's device."""


@dataclass(frozen=True, eq=False)
class Encoded:
    """Hold a batch of images as the frozen part of the image tower leaves them.

    Attributes
    ----------
    features
        Unit features [batch joint] of the tower without prompts.
    rows
        What enters the first prompted block; None where the tower takes no prompt.
    """

    features: ImageFeatures
    rows: Activations | None = None

    def __len__(self) -> int:
        return len(self.features)


@dataclass(frozen=True, eq=False)
class EncodedImages:
    """Hold all images of a site; indexing gives a batch."""

    features: ImageFeatures
    rows: Rows | None = None

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, chosen: Tensor) -> Encoded:
        rows = None if self.rows is None else self.rows[chosen]
        return Encoded(self.features[chosen], rows)

    def parts(self, size: int) -> list[Tensor]:
        """Return the indices of all images in order, ``size`` at a time; none of no images."""
        found = torch.arange(len(self), device=self.features.device).split(size)
        return [part for part in found if len(part)]  # torch splits nothing into one empty part
