from flwr.app import RecordDict
from flwr.server.workflow import SecAggPlusWorkflow
from flwr.server.workflow.secure_aggregation.secaggplus_workflow import WorkflowState

from server.merge.secure_aggregation.workflow import Workflow


def test_sites_that_left_early_are_nobodys_neighbours(monkeypatch):
    monkeypatch.setattr(SecAggPlusWorkflow, "collect_masked_vectors_stage", lambda *_: True)
    everyone = {1, 2, 3, 4}
    state = WorkflowState(
        sampled_node_ids=everyone,
        active_node_ids={1, 2, 4},
        nid_to_neighbours={node: set(everyone) for node in everyone},
    )
    assert Workflow(4, 3).collect_masked_vectors_stage(None, RecordDict(), state)
    assert state.sampled_node_ids == {1, 2, 4}
    assert state.nid_to_neighbours == {node: {1, 2, 4} for node in (1, 2, 4)}
    state.active_node_ids.clear()
    assert state.sampled_node_ids == {1, 2, 4}  # a set of its own
