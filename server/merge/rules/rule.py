"""What an aggregation rule is: a way into the space that is averaged, and the way back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fedprompt.prompt_state import Dense, PromptState


@dataclass(frozen=True)
class Projection:
    """Hold the arrays that travel and what was lost on the way, in relative Frobenius norm.

    ``truncation_error`` is relative to the prompt that was to be merged, ``truncation_of_change``
    to how far it lies from the prompt before: in late rounds the prompt is long and hides a loss.
    """

    arrays: PromptState
    truncation_error: float
    truncation_of_change: float = 0.0


@dataclass(frozen=True)
class Rule:
    """Wrap any Flower strategy: it averages ``lift``-ed arrays, ``project`` brings them back.

    ``project`` gets the current arrays too: their rank is the rank to keep. ``merge_error`` is
    what averaging itself loses, given the lifted updates and their weights; ``mixed_ranks`` tells
    whether sites of a smaller rank may take part. ``place`` takes the current arrays, a lifted
    reply or mean of them and the round, and gives what a strategy averages.
    """

    lift: Callable[[PromptState], Dense]
    project: Callable[[Dense, PromptState], Projection]
    merge_error: Callable[[Sequence[Dense], Sequence[float]], float]
    mixed_ranks: bool = False
    place: Callable[[PromptState, Dense, int], Dense] = lambda _, update, __: update

    def moved(self, current: PromptState, reply: PromptState, dtype: str) -> Dense:
        """Return ``current``, lifted, moved by what a site changed of what it was given.

        Of equal ranks that is the reply, lifted. A site of smaller rank was given the nearest
        prompt that it can hold; what that lacks stays as it is.
        """
        lifted, given = self.lift(reply), self.lift(current.given_to(reply, dtype))
        before = self.lift(current)
        return {
            name: lifted[name]
            if np.array_equal(before[name], given[name])
            else before[name] + (lifted[name] - given[name])
            for name in before
        }


def identity_lift(arrays: PromptState) -> Dense:
    """Return the same arrays in float64, sorted by name."""
    return {name: arrays[name].astype(np.float64) for name in sorted(arrays)}


def identity_project(averaged: Dense, current: PromptState) -> Projection:
    """Return the averaged arrays in float32, in the order of ``current``; nothing is lost."""
    return Projection(PromptState({name: averaged[name] for name in current}), 0.0)


def no_merge_error(updates: Sequence[Dense], weights: Sequence[float]) -> float:  # noqa: ARG001
    """Return zero: the lifted arrays are averaged exactly."""
    return 0.0
