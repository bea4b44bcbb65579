"""Average a run's merged prompts over its rounds, where the method asks for it (PromptSRC).

The running sum is part of every checkpoint, in float64, so that a resumed run ends in the same
bytes. The last round's prompt is the average, and so is what is scored and saved then; a run that a
privacy budget ends before its last round keeps its last merged prompt.
"""

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from fedprompt.errors import ConfigError
from fedprompt.prompt_state import pairs
from fedprompt.prompts.averaging import PromptAverage
from fedprompt.settings.server import ServerConfig
from server.merge.rules import Projection, Rule
from server.rounds.federation import Task
from server.rounds.strategy_adapter import as_travelled

_PREFIX = "average/"  # of the sum's arrays in a checkpoint


class RoundAverage:
    """Hold the average over all rounds of a run; of other methods' runs, nothing.

    Parameters
    ----------
    task
        Says whether there is to be an average.
    config
        Rounds of the run, dtype of the wire.
    rule
        Takes arrays to what is averaged and back.

    Raises
    ------
    ConfigError
        Factors A and B would be averaged apart, which is no average of prompts.
    """

    def __init__(self, task: Task, config: ServerConfig, rule: Rule) -> None:
        if task.averaged and config.rule == "factors" and pairs(task.arrays):
            raise ConfigError(
                "server.rule = factors keeps A and B apart, and this prompt.method ends in an "
                "average of its rounds' prompts A B; set server.rule = product, or "
                "prompt.form = full"
            )
        self._rule, self._config, self._wanted = rule, config, task.averaged
        self._average = PromptAverage(max(1, config.rounds), rule.lift)

    def after(self, server_round: int, merged: Projection) -> Projection:
        """Take a round's prompt in; return it, or after the last round the average."""
        if not self._wanted:
            return merged
        self._average.take(server_round, merged.arrays)
        if server_round < self._config.rounds:
            return merged
        found = self._rule.project(self._average.total, merged.arrays)
        lost = merged.truncation_error + found.truncation_error
        travelling = as_travelled(found.arrays, self._config.dtype)
        return Projection(travelling, lost, merged.truncation_of_change)

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Return the sum's arrays, named so that ``restore`` finds them again."""
        return {_PREFIX + name: array for name, array in self._average.total.items()}

    def restore(self, tensors: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on from the sum in a checkpoint."""
        found = {n: array for n, array in tensors.items() if n.startswith(_PREFIX)}
        self._average.total = {n.removeprefix(_PREFIX): array for n, array in found.items()}
