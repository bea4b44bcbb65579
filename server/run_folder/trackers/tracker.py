"""What a tracker is, and the figures it is told."""

from collections.abc import Mapping
from typing import Protocol

from fedprompt.round_record import RoundRecord


class Tracker(Protocol):
    """Keep the figures of a run's rounds where people look at them."""

    def log(self, record: RoundRecord) -> None:
        """Keep one committed round; a round that is told again replaces itself."""

    def close(self, *, done: bool) -> None:
        """Write what is not written yet; ``done`` tells whether the run came to its end."""


def figures(record: RoundRecord) -> Mapping[str, float]:
    """Return the numbers of a round, by name; of sites, how many there are."""
    numbers: dict[str, float | None] = {
        "accuracy": record.accuracy,
        "worst_client_acc": record.worst_client_acc,
        "nll": record.nll,
        "loss": record.loss,
        "information_density": record.information_density,
        "change_rank": record.change_rank,
        "truncation_error": record.truncation_error,
        "truncation_of_change": record.truncation_of_change,
        "seconds": record.seconds,
        "sites_quarantined": len(record.quarantined),
    }
    if record.asked:  # the round was one of training
        numbers |= {
            "bytes_up": record.bytes_up,
            "bytes_down": record.bytes_down,
            "sites_asked": len(record.asked),
            "sites_accepted": len(record.accepted),
        }
    return {name: float(value) for name, value in numbers.items() if value is not None}
