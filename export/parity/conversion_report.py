"""What each step from torch to a file costs and gains: one rung a step."""

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from export.parity.compare import Parity

_REPEATS = 9


@dataclass(frozen=True, kw_only=True)
class Rung:
    """Hold one step.

    Attributes
    ----------
    step
        The rewrite that was added.
    size
        Bytes of the file so far.
    nodes
        Operators.
    agreement, largest, loss
        Against torch: see `export.parity.compare.Parity`.
    speed
        CPU time of open_clip over the graph's, one image at a time in one thread each; None where
        torch or the graph ran elsewhere.
    """

    step: str
    size: int
    nodes: int
    agreement: float
    largest: float
    loss: float | None
    speed: float | None

    @classmethod
    def of(
        cls, step: str, parity: Parity, *, size: int, nodes: int, speed: float | None = None
    ) -> "Rung":
        """Return the rung of a comparison with torch."""
        found = parity.to_dict()
        return cls(
            step=step,
            size=size,
            nodes=nodes,
            agreement=found["agreement"],
            largest=found["largest"],
            loss=found["loss"],
            speed=speed,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        lost = "" if self.loss is None else f", accuracy {0 - 100 * self.loss:+.2f} points"
        fast = "" if self.speed is None else f", {self.speed:.2f} times as fast as open_clip here"
        return (
            f"{self.step}: {self.size / 1e6:.1f} MB, same first class on {self.agreement:.2%}"
            f"{lost}{fast}"
        )


def speed(
    reference: Callable[[], object],
    changed: Callable[[], object],
    *,
    repeats: int = _REPEATS,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Return how many times faster ``changed`` is: both in turn, the ratio of the medians."""
    took: tuple[list[float], list[float]] = ([], [])
    reference(), changed()  # what is only done once
    for _ in range(repeats):
        for run, times in zip((reference, changed), took, strict=True):
            begin = clock()
            run()
            times.append(clock() - begin)
    return statistics.median(took[0]) / max(statistics.median(took[1]), 1e-9)
