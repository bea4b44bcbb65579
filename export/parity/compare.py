"""Compare answers with torch's by the bounds of a precision, on real images and on probes (F32).

Probes are images that anyone can make again from a seed, so that a file carries its own test. Each
is a grid of coloured cells, from 2 x 2 to 32 x 32. The colours are bytes of SHAKE-256: the same on
every machine, in every language, in every release of numpy. No torch here.
"""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fedprompt.errors import GraphError, ParityError

Logits = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

PROBES = 8  # in a file
_CELLS = (2, 4, 8, 16, 32)  # along one side
_MOST_PROBES = 64  # that a file may hold, each an image of the graph's size


class Bounds(NamedTuple):
    """What a precision may cost.

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
    """A comparison with torch.

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
        """Whether the bounds are kept."""
        if self.largest > self.logit_bound:
            return False
        if self.loss is not None and self.loss_bound is not None:
            return self.loss < self.loss_bound
        return self.agreement >= self.agreement_bound

    @property
    def coarse(self) -> bool:
        """Whether one image more or less is a larger loss than the bound."""
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
            The bounds are broken.
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
    logits: Logits, reference: Logits, precision: str = "fp32", labels: Labels | None = None
) -> Parity:
    """Compare logits [images classes] of real images with torch's; labels are int64 [images].

    Raises
    ------
    GraphError
        The shapes differ, there is nothing to compare, or the precision is unknown.
    """
    bounds = _bounds_of(precision)
    if logits.shape != reference.shape or not reference.size:
        raise GraphError(
            f"the graph gives logits {list(logits.shape)}, torch {list(reference.shape)}; the file "
            "was changed or frozen to one batch size"
        )
    difference = np.abs(logits.astype(np.float64) - reference)
    ours, theirs = logits.argmax(1), reference.argmax(1)
    loss = None if labels is None else float(np.mean(theirs == labels) - np.mean(ours == labels))
    return Parity(
        images=len(reference),
        agreement=float((ours == theirs).mean()),
        largest=float(difference.max()) if np.isfinite(difference).all() else float("inf"),
        logit_bound=max(bounds.logits, bounds.spread * float(np.ptp(reference))),
        agreement_bound=bounds.agreement,
        loss=loss,
        loss_bound=bounds.loss,
    )


def compare_probes(logits: Logits, reference: Logits, precision: str = "fp32") -> Parity:
    """Compare logits of made-up pictures, which lie between classes: below fp32 any may be first.

    Raises
    ------
    GraphError
        See `compare`.
    """
    parity = compare(logits, reference, precision)
    exact = parity.agreement_bound == 1
    return parity if exact else replace(parity, agreement_bound=0.0)


def _bounds_of(precision: str) -> Bounds:
    if precision not in BOUNDS:
        raise GraphError(
            f"the file's precision is {precision[:20]!r}, this release knows "
            f"{', '.join(BOUNDS)}; upgrade fedprompt"
        )
    return BOUNDS[precision]


def require_finite(logits: Logits) -> None:
    """Refuse logits of extreme images that are not numbers.

    Raises
    ------
    ParityError
        Some are not.
    """
    if not np.isfinite(logits).all():
        raise ParityError(
            "the answer to a black, white or noisy image is not a number: some value overflows; "
            "export in fp32"
        )


@dataclass(frozen=True, kw_only=True)
class Probes:
    """Torch's logits of the probes of one seed.

    Attributes
    ----------
    seed
        Which probes.
    logits
        float32 [probes classes], from torch.
    """

    seed: int
    logits: npt.NDArray[np.float32]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, inverse of `from_dict`."""
        data = np.ascontiguousarray(self.logits, "<f4").tobytes()
        return {
            "seed": self.seed,
            "shape": list(self.logits.shape),
            "logits": base64.b64encode(data).decode(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Probes":
        """Read what `to_dict` wrote.

        Raises
        ------
        GraphError
            The values are damaged.
        """
        try:
            seed, (count, classes) = int(values["seed"]), values["shape"]
            flat = np.frombuffer(base64.b64decode(values["logits"], validate=True), "<f4")
            logits = flat.reshape(int(count), int(classes)).astype(np.float32)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise GraphError(f"the stored probes are damaged: {error}; export again") from None
        if not 1 <= len(logits) <= _MOST_PROBES or not np.isfinite(logits).all():
            raise GraphError("the stored probes hold no finite answers; export again")
        return cls(seed=seed, logits=logits)


def probe_images(seed: int, count: int, size: int) -> npt.NDArray[np.uint8]:
    """Return the probes of a seed: uint8 [count size size 3]."""
    return np.stack([_probe(seed, index, size) for index in range(count)])


def extreme_images(size: int) -> npt.NDArray[np.uint8]:
    """Return black, white and noise, uint8 [3 size size 3]: where short numbers would overflow."""
    random_bytes = hashlib.shake_256(b"fedprompt noise").digest(size * size * 3)
    noise = np.frombuffer(random_bytes, np.uint8).reshape(size, size, 3)
    return np.stack([np.zeros_like(noise), np.full_like(noise, 255), noise])


def _probe(seed: int, index: int, size: int) -> npt.NDArray[np.uint8]:
    cells = _CELLS[index % len(_CELLS)]
    random_bytes = hashlib.shake_256(f"fedprompt probe {seed} {index}".encode()).digest(
        cells * cells * 3
    )
    colours = np.frombuffer(random_bytes, np.uint8).reshape(cells, cells, 3)
    cell = np.arange(size) * cells // size
    return colours[cell][:, cell]
