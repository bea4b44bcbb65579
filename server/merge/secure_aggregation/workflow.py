"""Flower's SecAgg+ workflow, told who is left before anything is masked."""

from flwr.server import LegacyContext
from flwr.server.workflow import SecAggPlusWorkflow
from flwr.server.workflow.secure_aggregation.secaggplus_workflow import WorkflowState
from flwr.serverapp import Grid


class Workflow(SecAggPlusWorkflow):
    """Forget the sites that were gone before they had shared their secrets.

    Nobody masked for them and nobody holds a share of theirs. Flower 1.41 asks for those shares all
    the same, so that one site lost in the first two stages breaks the sum off at every other.
    """

    def collect_masked_vectors_stage(
        self, grid: Grid, context: LegacyContext, state: WorkflowState
    ) -> bool:
        """Train the sites that shared their secrets, and collect their masked vectors."""
        there = set(state.active_node_ids)
        state.sampled_node_ids = there
        near = state.nid_to_neighbours
        state.nid_to_neighbours = {node: near[node] & there for node in there}
        return bool(super().collect_masked_vectors_stage(grid, context, state))
