"""What an evaluation protocol is: one method at one seed is tuned as it says, and measured."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fedprompt.experiments.protocols.tuned import Tuned
from fedprompt.round_record import RoundRecord
from fedprompt.settings.run_config import RunConfig
from fedprompt.settings.section import Flat

# by the field's names: shares from 0 to 1, nll in nats; None where a method has no such figure
Metrics = dict[str, float | None]
Federate = Callable[[RunConfig], list[RoundRecord]]  # into server.output; returns the record


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Hold one method at one seed.

    Attributes
    ----------
    config
        Every setting of the run.
    folder
        Where artefacts and federations of this trial are kept.
    federate
        Runs a federation; the site's side cannot import the server's.
    targets
        Settings of further data sets, by name.
    """

    config: RunConfig
    folder: Path
    federate: Federate
    targets: Mapping[str, Flat] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """Hold what a trial measured, and the method as it was tuned."""

    metrics: Metrics
    tuned: Tuned


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Name what is run, and with which settings where nobody says otherwise.

    Attributes
    ----------
    run
        Tunes and measures.
    headline
        The metric that methods are plotted by.
    defaults
        The published setting, where it differs from a run's own defaults.
    """

    run: Callable[[Trial], Found]
    headline: str
    defaults: Flat = field(default_factory=dict)


def harmonic_mean(one: float | None, other: float | None) -> float | None:
    """Return 2 / (1 / one + 1 / other); None where either is missing."""
    if one is None or other is None:
        return None
    return 2 * one * other / (one + other) if one + other else 0.0
