"""Stand in for the strategy that Flower's SecAgg+ workflow wants: it is of the older interface.

The workflow lets a strategy sample and aggregate. This one hands it the sites of the round and
keeps the vector it ends with.
"""

# ruff: noqa: ARG002 (the interface passes more than one try of a round needs)
from collections.abc import Sequence

from flwr.common import EvaluateIns, FitIns, FitRes, Parameters, Scalar, parameters_to_ndarrays
from flwr.server.client_manager import ClientManager
from flwr.server.client_proxy import ClientProxy
from flwr.server.compat.grid_client_proxy import GridClientProxy
from flwr.server.strategy import Strategy
from flwr.serverapp import Grid

from fedprompt.secure_sum import Vector


class OneTry(Strategy):
    """Hand the workflow its nodes and keep the vector it ends with."""

    def __init__(self, grid: Grid, nodes: Sequence[int]) -> None:
        self.proxies = [GridClientProxy(node, grid, grid.run.run_id) for node in nodes]
        self.vector: Vector | None = None

    def configure_fit(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, FitIns]]:
        """Return the round's sites; what they are sent is put in on the way."""
        return [(proxy, FitIns(Parameters([], ""), {})) for proxy in self.proxies]

    def aggregate_fit(
        self,
        server_round: int,
        results: list[tuple[ClientProxy, FitRes]],
        failures: list[tuple[ClientProxy, FitRes] | BaseException],
    ) -> tuple[Parameters | None, dict[str, Scalar]]:
        """Keep the mean, which the workflow has put in every result alike."""
        (self.vector,) = parameters_to_ndarrays(results[0][1].parameters)
        return None, {}

    def initialize_parameters(self, client_manager: ClientManager) -> Parameters | None:
        """Return nothing: the round loop holds the prompt."""
        return None

    def configure_evaluate(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, EvaluateIns]]:
        """Return nobody: the round loop evaluates."""
        return []

    def aggregate_evaluate(
        self, server_round: int, results: object, failures: object
    ) -> tuple[float | None, dict[str, Scalar]]:
        """Return nothing: the round loop evaluates."""
        return None, {}

    def evaluate(
        self, server_round: int, parameters: Parameters
    ) -> tuple[float, dict[str, Scalar]] | None:
        """Return nothing: the round loop evaluates."""
        return None
