"""PromptSRC's prompt averaging: a mean over the run, by Gaussian weights (arXiv 2307.06948; code).

    P = sum_t w_t P_t    w_t ~ exp(-((t/T - 0.75) / 0.05)^2 / 2)    sum_t w_t = 1

A step t is an epoch of ``fedprompt train``; in a federation, where an epoch belongs to one site's
round, it is the prompt that the server has merged in round t (ours). The code counts in epochs: its
mean is 15 of 20 and its deviation 1 for base-to-new; here both are shares of the run (ours).
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float64

from fedprompt.prompt_state import Dense, PromptState

MEAN, DEVIATION = 0.75, 0.05  # of the run's length


def gaussian_weights(steps: int) -> Float64[np.ndarray, " steps"]:
    """Return w_1 ... w_T, of sum one."""
    progress = np.arange(1, steps + 1) / steps
    powers = -(((progress - MEAN) / DEVIATION) ** 2) / 2
    weights = np.exp(powers - powers.max())  # of a single step, too, whose own weight is 4e-6
    normalised: Float64[np.ndarray, " steps"] = weights / weights.sum()
    return normalised


class PromptAverage:
    """Add up a run's prompts, each by its weight, as they come.

    Parameters
    ----------
    steps
        Of the whole run, at least one.
    lift
        Takes arrays to what is averaged: products of factors, as factors apart have no mean.
    """

    def __init__(self, steps: int, lift: Callable[[PromptState], Dense]) -> None:
        self._weights, self._lift = gaussian_weights(steps), lift
        self.total: Dense = {}  # the mean, once the last step is taken

    def take(self, step: int, arrays: PromptState) -> None:
        """Add the prompt of a step, from 1 on."""
        for name, array in self._lift(arrays).items():
            self.total[name] = self.total.get(name, 0.0) + self._weights[step - 1] * array
