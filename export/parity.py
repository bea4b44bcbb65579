"""Measure how far answers lie from torch's, and refuse what lies too far (F32). No torch here."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedprompt.errors import GraphError, ParityError

LOGIT_BOUND = {"fp32": 1e-3}  # largest logit difference, absolute
AGREEMENT = {"fp32": 1.0}  # share of images with the same first class

Logits = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Parity:
    """Hold a comparison with torch.

    Attributes
    ----------
    images
        How many were compared.
    agreement
        Share of them with the same first class.
    largest
        Largest absolute difference of a logit; infinite where one is not a number.
    logit_bound, agreement_bound
        What was asked.
    """

    images: int
    agreement: float
    largest: float
    logit_bound: float
    agreement_bound: float

    @property
    def holds(self) -> bool:
        """Say whether both bounds are kept."""
        return self.largest <= self.logit_bound and self.agreement >= self.agreement_bound

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; an infinite difference is written as the largest float."""
        largest = min(self.largest, float(np.finfo(np.float64).max))
        return asdict(self) | {"largest": largest, "holds": self.holds}

    def require(self) -> None:
        """Refuse a breach.

        Raises
        ------
        ParityError
            Says what was measured and what was asked.
        """
        if not self.holds:
            raise ParityError(
                f"{self}; expected at most {self.logit_bound:g} and at least "
                f"{self.agreement_bound:.2%}"
            )

    def __str__(self) -> str:
        return (
            f"{self.images} images: largest logit difference {self.largest:.3g}, same first class "
            f"on {self.agreement:.2%}"
        )


def compare(found: Logits, expected: Logits, precision: str = "fp32") -> Parity:
    """Compare logits [images classes] with torch's.

    Raises
    ------
    GraphError
        The shapes differ, or there is nothing to compare.
    """
    if found.shape != expected.shape or not expected.size:
        raise GraphError(
            f"the graph gives logits {list(found.shape)}, torch {list(expected.shape)}; the file "
            "was changed or frozen to one batch size"
        )
    difference = np.abs(found.astype(np.float64) - expected)
    return Parity(
        images=len(expected),
        agreement=float((found.argmax(1) == expected.argmax(1)).mean()),
        largest=float(difference.max()) if np.isfinite(difference).all() else float("inf"),
        logit_bound=LOGIT_BOUND[precision],
        agreement_bound=AGREEMENT[precision],
    )
