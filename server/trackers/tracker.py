"""What a tracker is, and the figures it is told."""

from collections.abc import Mapping
from typing import Protocol

from server.record import Line

_FIGURES = (
    "accuracy", "worst_client_acc", "nll", "loss", "information_density", "change_rank",
    "truncation_error", "truncation_of_change", "bytes_up", "bytes_down", "seconds",
)  # fmt: skip
_COUNTS = ("asked", "accepted", "quarantined")  # lists of sites, told by their length


class Tracker(Protocol):
    """Keep the figures of a run's rounds where people look at them."""

    def log(self, line: Line) -> None:
        """Keep one committed round; a round that is told again replaces itself."""

    def close(self, *, done: bool) -> None:
        """Write what is not written yet; ``done`` tells whether the run came to its end."""


def figures(line: Line) -> Mapping[str, float]:
    """Return the numbers of a round's line, by name."""
    numbers = {key: float(line[key]) for key in _FIGURES if line.get(key) is not None}
    sites = {f"sites_{key}": float(len(line[key])) for key in _COUNTS if key in line}
    return numbers | sites
