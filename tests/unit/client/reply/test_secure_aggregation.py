"""What a site refuses to do in a secure sum; the protocol itself is in tests/faults."""

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.common import parameters_to_ndarrays
from flwr.compat.common.recorddict_compat import recorddict_to_fitres
from flwr.supercore.task_identity import TaskIdentity

from client.reply.secure_aggregation import check, secured, to_fit_result
from fedprompt.errors import ConfigError
from fedprompt.secure_sum import levels
from fedprompt.wire import to_array_record

SETUP = {
    "stage": "setup",
    "sample_num": 5,
    "share_num": 5,
    "threshold": 3,
    "clipping_range": 2.0,
    "target_range": levels(5),
    "mod_range": 2**32,
    "max_weight": 1.0,
}


def test_the_agreed_setup_passes():
    check(ConfigRecord(SETUP), 2.0)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"threshold": 2}, "more than half"),
        ({"threshold": 1, "share_num": 1}, "three shares or more"),
        ({"threshold": 6}, "more than half"),
        ({"share_num": 7, "threshold": 4}, "more than half"),
        ({"sample_num": 2, "share_num": 2, "threshold": 2}, "three shares or more"),
        ({"target_range": 2**31}, "agreed are"),
        ({"clipping_range": 100.0}, "agreed are"),
        ({"max_weight": 1000.0}, "agreed are"),
        ({"mod_range": 3}, "agreed are"),  # masks of 0 and 1 would hide nothing
        ({"threshold": "3"}, "expected an integer"),
    ],
)
def test_a_setup_that_protects_less_is_refused(change, match):
    with pytest.raises(ConfigError, match=match):
        check(ConfigRecord(SETUP | change), 2.0)


def test_both_shares_of_a_site_are_never_sent():
    asked = {"stage": "unmask", "active_nids": [1, 2, 3], "dead_nids": [3, 4]}
    with pytest.raises(ConfigError, match="1 sites alive and gone at once"):
        check(ConfigRecord(asked), 2.0)
    check(ConfigRecord(asked | {"dead_nids": [4]}), 2.0)


@pytest.fixture(autouse=True)
def _task():
    """Say which run messages belong to, as every grid does."""
    TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 1, 1


def message(content):
    return Message(RecordDict(content), 7, "train")


def context(**settings):
    return Context(1, 7, {}, RecordDict(), {f"server.{k}": v for k, v in settings.items()})


def test_a_run_that_did_not_agree_is_answered_as_before():
    asked = message({})
    assert secured(asked, context(), lambda m, c: m) is asked


def test_an_update_in_the_clear_is_refused_before_anything_is_trained():
    def train(asked, told):
        raise AssertionError("this site must not train")

    with pytest.raises(ConfigError, match="in the clear"):
        secured(message({}), context(secure_aggregation=True, clip_norm=1.0), train)


def answer(a, b, count=9):
    arrays = to_array_record({"ctx.A": np.float32(a), "ctx.B": np.float32(b)}, "float32")
    metrics = MetricRecord({"num-examples": count, "loss": 0.5, "receipt": 77})
    return RecordDict({"arrays": arrays, "metrics": metrics})


def test_the_change_of_the_product_is_what_is_summed():
    before, after = answer([[1.0], [0.0]], [[1.0, 1.0]]), answer([[1.0], [1.0]], [[2.0, 1.0]])
    result = recorddict_to_fitres(to_fit_result(before, after, 100.0, 2**22), keep_input=True)
    (vector,) = parameters_to_ndarrays(result.parameters)
    np.testing.assert_array_equal(vector, [1, 0, 2, 1])
    assert (result.num_examples, result.metrics) == (1, {"receipt": 77})  # no count, no loss


def test_a_site_of_smaller_rank_adds_only_what_it_changed():
    """Sent rank 2, diag(3, 2); a site of rank 1 was given diag(3, 0) and made it diag(5, 0)."""
    before = answer([[3.0, 0.0], [0.0, 2.0]], [[1.0, 0.0], [0.0, 1.0]])
    for grown in (3.0, 5.0):
        after = answer([[grown], [0.0]], [[1.0, 0.0]])
        result = recorddict_to_fitres(to_fit_result(before, after, 100.0, 2**22), keep_input=True)
        (vector,) = parameters_to_ndarrays(result.parameters)
        np.testing.assert_allclose(vector, [grown - 3, 0, 0, 0], atol=1e-6)


def test_a_long_change_is_cut_and_one_without_images_is_zero():
    before, after = answer([[0.0], [0.0]], [[0.0, 0.0]]), answer([[3.0], [4.0]], [[10.0, 0.0]])
    cut = recorddict_to_fitres(to_fit_result(before, after, 1.0, 2**22), keep_input=True)
    (vector,) = parameters_to_ndarrays(cut.parameters)
    np.testing.assert_allclose(vector, [0.6, 0, 0.8, 0], atol=2e-6)
    empty = to_fit_result(before, answer([[3.0], [4.0]], [[10.0, 0.0]], count=0), 1.0, 2**22)
    result = recorddict_to_fitres(empty, keep_input=True)
    assert not parameters_to_ndarrays(result.parameters)[0].any()
    assert result.num_examples == 0
