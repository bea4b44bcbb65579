from types import SimpleNamespace

import numpy as np
from flwr.common import Code, FitRes, Parameters, Status, ndarrays_to_parameters

from server.merge.secure_aggregation.one_try import OneTry


def test_the_workflow_gets_the_rounds_sites_and_leaves_its_vector():
    strategy = OneTry(SimpleNamespace(run=SimpleNamespace(run_id=5)), [7, 3, 9])
    asked = strategy.configure_fit(1, Parameters([], ""), None)
    assert [proxy.node_id for proxy, _ in asked] == [7, 3, 9]
    assert strategy.vector is None
    mean = np.array([0.5, -0.25, 3.0])
    told = FitRes(Status(Code.OK, ""), ndarrays_to_parameters([mean]), 1, {})
    assert strategy.aggregate_fit(1, [(proxy, told) for proxy, _ in asked], []) == (None, {})
    np.testing.assert_array_equal(strategy.vector, mean)


def test_the_workflow_evaluates_nobody():
    strategy = OneTry(SimpleNamespace(run=SimpleNamespace(run_id=5)), [7])
    assert strategy.configure_evaluate(1, Parameters([], ""), None) == []
