"""Choose a learning rate for each method, without a look at a test image.

Every method is tuned at each rate of a small grid at a seed of its own, in the setting of a part of
docs/results.md; the rate with the best accuracy on the images that the sites hold out is taken. A
method that is tuned badly says nothing about the method.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.results_parts import (
    EMOJI,
    EMOJI_RATES,
    FASHION,
    RATES,
    TEN_ROUNDS,
    Cases,
    domain_cases,
    every_method,
)
from client.protocols.base_to_new import BASE
from client.protocols.protocol import Found, Protocol, Trial
from client.protocols.series import Result
from client.protocols.tune import federated, last_scored
from fedprompt.prompts.build import UNTRAINED
from fedprompt.settings.section import Flat

SEED = 9  # of no other part
GRID = (0.005, 0.02, 0.08)
_FEW: Flat = {"data.test_limit": 50}  # the test images are loaded, not looked at
_SEPARATOR = " at "


@dataclass(frozen=True)
class Choice:
    """Hold the setting in which rates are chosen, and of which cases."""

    given: Flat
    methods: Cases
    grid: Sequence[float] = GRID

    def cases(self) -> Cases:
        """Return each method at each rate."""
        return {
            f"{name}{_SEPARATOR}{rate:g}": own | {"fit.learning_rate": rate}
            for name, own in self.methods.items()
            if name not in UNTRAINED
            for rate in self.grid
        }


def run(trial: Trial) -> Found:
    """Return the accuracy on held-out images."""
    tuned, records = federated(trial, "run", {})
    return Found({"accuracy": last_scored(records).accuracy}, tuned)


PROTOCOL = Protocol(run=run, headline="accuracy")


def choices() -> dict[str, Choice]:
    """Return the choices by the names under which parts ask for them."""
    return {
        RATES: Choice(FASHION | TEN_ROUNDS | BASE | _FEW, every_method({})),
        EMOJI_RATES: Choice(EMOJI | _FEW, domain_cases({}), (0.001, *GRID)),
    }


def chosen(results: Sequence[Result]) -> dict[str, float]:
    """Return the best rate of each method; of equal ones the smallest."""
    best: dict[str, tuple[float, float]] = {}
    for result in results:
        name = result.case.rpartition(_SEPARATOR)[0]
        accuracy, rate = result.metrics["accuracy"] or 0.0, float(result.own["fit.learning_rate"])
        if name not in best or (accuracy, -rate) > (best[name][0], -best[name][1]):
            best[name] = (accuracy, rate)
    return {name: rate for name, (_, rate) in best.items()}
