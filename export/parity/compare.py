"""Measure how far answers lie from torch's, and refuse what lies too far (F32). No torch here."""

from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fedprompt.errors import GraphError, ParityError

Logits = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


class Bounds(NamedTuple):
    """State what a precision may cost.

    Attributes
    ----------
    logits
        Largest difference of a logit, absolute.
    spread
        The same as a share of the range of torch's logits; the larger of both counts.
    agreement
        Least share of images with the same first class.
    loss
        Largest loss of accuracy, a share; None where agreement decides, labels or not.
    """

    logits: float
    spread: float
    agreement: float
    loss: float | None = None


# Where labels are there, int8 is judged by what is right; without them, no loss of accuracy can be
# larger than the share of images with another first class, hence the 0.99.
BOUNDS = {
    "fp32": Bounds(1e-3, 0.0, 1.0),
    "fp16": Bounds(1e-3, 0.01, 0.995),
    "bf16": Bounds(1e-3, 0.08, 0.99, loss=0.01),
    "int8": Bounds(1e-3, 0.2, 0.99, loss=0.01),
}


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
    loss
        Accuracy of torch less that of the graph, a share; None without labels.
    loss_bound
        What was asked; where it is None, agreement decides.
    """

    images: int
    agreement: float
    largest: float
    logit_bound: float
    agreement_bound: float
    loss: float | None = None
    loss_bound: float | None = None

    @property
    def holds(self) -> bool:
        """Say whether the bounds are kept."""
        if self.largest > self.logit_bound:
            return False
        if self.loss is not None and self.loss_bound is not None:
            return self.loss < self.loss_bound
        return self.agreement >= self.agreement_bound

    @property
    def coarse(self) -> bool:
        """Say whether one image more or less is a larger loss than the bound."""
        return self.loss is not None and self.images * (self.loss_bound or 1) < 1

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
            by_loss = self.loss is not None and self.loss_bound is not None
            asked = (
                f"a loss under {100 * (self.loss_bound or 0):g} points"
                if by_loss
                else f"at least {self.agreement_bound:.2%}"
            )
            raise ParityError(f"{self}; expected at most {self.logit_bound:.3g} and {asked}")

    def __str__(self) -> str:
        lost = "" if self.loss is None else f", accuracy {0 - 100 * self.loss:+.2f} points"
        return (
            f"{self.images} images: largest logit difference {self.largest:.3g}, same first class "
            f"on {self.agreement:.2%}{lost}"
        )


def compare(
    found: Logits, expected: Logits, precision: str = "fp32", labels: Labels | None = None
) -> Parity:
    """Compare logits [images classes] of real images with torch's; labels are int64 [images].

    Raises
    ------
    GraphError
        The shapes differ, there is nothing to compare, or the precision is unknown.
    """
    bounds = _bounds(precision)
    if found.shape != expected.shape or not expected.size:
        raise GraphError(
            f"the graph gives logits {list(found.shape)}, torch {list(expected.shape)}; the file "
            "was changed or frozen to one batch size"
        )
    difference = np.abs(found.astype(np.float64) - expected)
    ours, theirs = found.argmax(1), expected.argmax(1)
    loss = None if labels is None else float(np.mean(theirs == labels) - np.mean(ours == labels))
    return Parity(
        images=len(expected),
        agreement=float((ours == theirs).mean()),
        largest=float(difference.max()) if np.isfinite(difference).all() else float("inf"),
        logit_bound=max(bounds.logits, bounds.spread * float(np.ptp(expected))),
        agreement_bound=bounds.agreement,
        loss=loss,
        loss_bound=bounds.loss,
    )


def compare_probes(found: Logits, expected: Logits, precision: str = "fp32") -> Parity:
    """Compare logits of made-up pictures, which lie between classes: below fp32 any may be first.

    Raises
    ------
    GraphError
        See `compare`.
    """
    parity = compare(found, expected, precision)
    exact = parity.agreement_bound == 1
    return parity if exact else replace(parity, agreement_bound=0.0)


def _bounds(precision: str) -> Bounds:
    if precision not in BOUNDS:
        raise GraphError(
            f"the file's precision is {precision[:20]!r}, this release knows "
            f"{', '.join(BOUNDS)}; upgrade fedprompt"
        )
    return BOUNDS[precision]
