"""Flower's strategies by name, and what of their state outlives a round."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.serverapp.strategy import (
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedProx,
    FedYogi,
    Krum,
    Strategy,
)

from fedprompt.settings.server import ServerConfig
from server.merge.robust import BestOfKrum, Bulyan, TrimmedMean

Tensors = dict[str, npt.NDArray[Any]]

# The round loop samples, so every strategy is told to take all nodes it is shown.
_ALL: dict[str, Any] = {"fraction_train": 1.0, "min_train_nodes": 1, "min_available_nodes": 1}

STRATEGIES: dict[str, Callable[[ServerConfig], Strategy]] = {
    "fedavg": lambda _: FedAvg(**_ALL),
    "fedprox": lambda c: FedProx(**_ALL, proximal_mu=c.mu),
    "fedadam": lambda c: FedAdam(**_ALL, **_adaptive(c)),
    "fedyogi": lambda c: FedYogi(**_ALL, **_adaptive(c)),
    "fedavgm": lambda c: FedAvgM(**_ALL, server_momentum=c.momentum),
    "fedmedian": lambda _: FedMedian(**_ALL),
    "fedtrimmedavg": lambda c: TrimmedMean(c.byzantine, **_ALL),
    "krum": lambda c: Krum(**_ALL, num_malicious_nodes=c.byzantine),
    "multikrum": lambda c: BestOfKrum(**_ALL, num_malicious_nodes=c.byzantine),
    "bulyan": lambda c: Bulyan(c.byzantine, **_ALL),
}

_MOMENTS = ("m_t", "v_t")  # FedAdam and FedYogi: name -> array
_VELOCITY = "momentum_vector"  # FedAvgM: one array for each name, in order


def _adaptive(config: ServerConfig) -> dict[str, Any]:
    return {
        "eta": config.learning_rate,
        "beta_1": config.beta_1,
        "beta_2": config.beta_2,
        "tau": config.tau,
    }


def state(strategy: Strategy) -> Tensors:
    """Return the optimiser's arrays, named so that ``restore`` finds them again."""
    tensors: Tensors = {}
    for field in _MOMENTS:
        for name, array in (getattr(strategy, field, None) or {}).items():
            tensors[f"{field}/{name}"] = np.asarray(array)
    for i, array in enumerate(getattr(strategy, _VELOCITY, None) or []):
        tensors[f"{_VELOCITY}/{i:06d}"] = np.asarray(array)
    return tensors


def restore(strategy: Strategy, tensors: Mapping[str, npt.NDArray[Any]]) -> None:
    """Give a fresh strategy the arrays that ``state`` took from its predecessor."""
    for field in _MOMENTS:
        found = {k.partition("/")[2]: v for k, v in tensors.items() if k.startswith(f"{field}/")}
        if found:
            setattr(strategy, field, found)
    velocity = [tensors[name] for name in sorted(tensors) if name.startswith(f"{_VELOCITY}/")]
    if velocity:
        setattr(strategy, _VELOCITY, velocity)


def rebase(strategy: Strategy) -> None:
    """Make FedAvgM measure its step from the arrays that travelled.

    It would otherwise keep its own unprojected result, which no site has seen.
    """
    if isinstance(strategy, FedAvgM):
        strategy.current_arrays = None
