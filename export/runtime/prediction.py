"""What the classifier says of one image."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Prediction:
    """Hold the most probable classes of one image, best first."""

    name: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]

    @property
    def top(self) -> str:
        """Return the most probable class."""
        return self.classes[0]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        ranked = zip(self.classes, self.probabilities, strict=True)
        return {
            "image": self.name,
            "predictions": [{"class": c, "probability": p} for c, p in ranked],
        }


def rank(
    name: str, logits: npt.NDArray[np.float32], classes: tuple[str, ...], top_k: int
) -> Prediction:
    """Return the ``top_k`` classes by softmax of the logits [classes]; ties keep their order."""
    exact = logits.astype(np.float64)
    shares = np.exp(exact - exact.max())
    shares /= shares.sum()
    order = np.argsort(-shares, kind="stable")[:top_k]
    return Prediction(
        name, tuple(classes[i] for i in order), tuple(float(shares[i]) for i in order)
    )
