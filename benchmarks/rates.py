"""Choose a learning rate for each method, without a look at a test image.

Every method is tuned at each rate of a small grid at a seed of its own, in the setting of a part of
docs/results.md; the rate with the best accuracy on the images that the sites hold out is taken. A
method that does best at the lowest or highest rate gets the next one beyond it as well, until its
best rate has a worse one on either side. A method that is tuned badly says nothing about the
method.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.results_parts import (
    EMOJI,
    EMOJI_RATES,
    FASHION,
    RATES,
    TEN_ROUNDS,
    TOKENS,
    VISUAL_RATES,
    Cases,
    Rates,
    domain_cases,
    text_methods,
    visual_methods,
)
from fedprompt.experiments.protocols.centralised import BASE
from fedprompt.experiments.protocols.runner import Result
from fedprompt.experiments.protocols.trial import Measured, Protocol, Trial, last_scored
from fedprompt.prompts.methods import UNTRAINED
from fedprompt.settings.section import Flat

SEED = 9  # of no other part
STEP = 4  # from one rate to the next
GRID = (0.005, 0.02, 0.08)
LOWEST, HIGHEST = GRID[0] / STEP**3, GRID[-1] * STEP**3  # tried for any method
_FEW: Flat = {"data.test_limit": 50}  # the test images are loaded, not looked at
_SEPARATOR = " at "


@dataclass(frozen=True)
class Choice:
    """Hold the setting in which rates are chosen, and of which methods."""

    given: Flat
    methods: Cases

    def cases(self) -> Cases:
        """Return each method at each rate of the grid."""
        trained = [name for name in self.methods if name not in UNTRAINED]
        return dict(self._case(name, rate) for name in trained for rate in GRID)

    def beyond(self, results: Sequence[Result]) -> Cases:
        """Return each method whose best rate is the lowest or highest tried at the next one."""
        return dict(self._case(name, rate) for name, rate in _beyond(results))

    def _case(self, name: str, rate: float) -> tuple[str, Flat]:
        return f"{name}{_SEPARATOR}{rate:g}", self.methods[name] | {"fit.learning_rate": rate}


def run(trial: Trial) -> Measured:
    """Return the accuracy on held-out images."""
    method, records = trial.train_federated({})
    return Measured({"accuracy": last_scored(records).accuracy}, method)


PROTOCOL = Protocol(run=run, headline="accuracy")


def choices() -> dict[str, Choice]:
    """Return the choices by the names under which parts ask for them."""
    base = FASHION | TEN_ROUNDS | BASE | _FEW
    return {
        RATES: Choice(base, text_methods({})),
        VISUAL_RATES: Choice(base | TOKENS, visual_methods({})),
        EMOJI_RATES: Choice(EMOJI | _FEW, domain_cases({})),
    }


def chosen(results: Sequence[Result]) -> dict[str, float]:
    """Return the best rate of each method; of equal ones the smallest."""
    return {
        name: min(scores, key=lambda rate: (-scores[rate], rate))
        for name, scores in _by_method(results).items()
    }


def at_the_edge(rates: Rates) -> list[str]:
    """Return the methods whose rate is the lowest or highest that is tried for any."""
    return [name for name, rate in rates.items() if not LOWEST < rate < HIGHEST]


def _beyond(results: Sequence[Result]) -> Iterator[tuple[str, float]]:
    best = chosen(results)
    for name, scores in _by_method(results).items():
        lowest, highest = min(scores), max(scores)
        if best[name] == lowest > LOWEST:
            yield name, lowest / STEP
        if best[name] == highest < HIGHEST:
            yield name, highest * STEP


def _by_method(results: Sequence[Result]) -> dict[str, dict[float, float]]:
    """Return each method's accuracy by rate."""
    found: dict[str, dict[float, float]] = {}
    for result in results:
        name = result.case.rpartition(_SEPARATOR)[0]
        rate, accuracy = float(result.own["fit.learning_rate"]), result.metrics["accuracy"]
        found.setdefault(name, {})[rate] = accuracy or 0.0
    return found
