"""Messages in, plain replies out."""

import numpy as np
import pytest
from flwr.app import Error, Message, MetricRecord, RecordDict
from flwr.common.constant import ErrorCode
from hypothesis import given, settings
from hypothesis import strategies as st

from fedprompt.wire import DECLINED, to_array_record
from server.gate.replies import (
    read_evaluate,
    read_train,
    to_numpy_record,
    to_strategy,
)
from server.gate.verdict import Accepted, Reason
from server.rounds.exchange import Answer, Fault
from server.rounds.local_grid import LocalGrid
from tests.sites import client, start


@pytest.fixture(autouse=True, scope="module")
def identity():
    with LocalGrid(client(), 1, {}):  # a Message needs a task's identity
        yield


def answer(content=None, error=None, node=1000, size=1000):
    asked = Message(RecordDict(), node, "train")
    reply = Message(error or content, reply_to=asked)
    return Answer(node, reply, size)


def honest(arrays=None, **metrics):
    told = {"num-examples": 5, "receipt": 1, "loss": 0.5} | metrics
    record = to_array_record(arrays or start(), "float32")
    return RecordDict({"arrays": record, "metrics": MetricRecord(told)})


def read(content, size=1000):
    return read_train(answer(content, size=size), start(), "float32", True)


def test_an_honest_reply_is_unpacked():
    reply = read(honest())
    assert reply.refusal is None
    assert (reply.count, reply.receipt, reply.loss) == (5, 1, 0.5)
    assert reply.arrays["ctx.A"].tobytes() == start()["ctx.A"].tobytes()


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (ErrorCode.CLIENT_APP_RAISED_EXCEPTION, Reason.ERROR),
        (ErrorCode.CLIENT_APP_CRASHED, Reason.ERROR),
        (ErrorCode.NODE_UNAVAILABLE, Reason.TIMEOUT),
        (ErrorCode.MESSAGE_UNAVAILABLE, Reason.TIMEOUT),
        (ErrorCode.REPLY_MESSAGE_UNAVAILABLE, Reason.WITHHELD),
        (Fault.WITHHELD, Reason.WITHHELD),
        (Fault.TRESPASS, Reason.TRESPASS),
    ],
)
def test_errors_and_lost_nodes_are_told_apart(code, reason):
    reply = read_train(answer(error=Error(code, "why")), start(), "float32", True)
    assert reply.refusal == (reason, "why")


def test_a_site_may_decline_by_its_own_policy():
    told = f"{DECLINED}: min_sites: 3 at least, the server names 2"
    reply = read_train(answer(error=Error(2, told)), start(), "float32", True)
    assert reply.refusal == (Reason.DECLINED, told)
    quoted = Error(2, f"<class 'RuntimeError'>:<'{told}'>")  # an exception that says so is none
    assert read_train(answer(error=quoted), start(), "float32", True).refusal[0] is Reason.ERROR


def test_a_long_error_is_cut():
    reply = read_train(answer(error=Error(2, "x" * 10**5)), start(), "float32", True)
    assert len(reply.refusal[1]) == 200


def test_an_answer_for_another_node_is_refused():
    found = answer(honest())
    found.message.metadata.__dict__["_src_node_id"] = 5
    assert read_train(found, start(), "float32", True).refusal[0] is Reason.IDENTITY


def test_a_loss_may_be_withheld_and_nothing_else():
    content = honest()
    del content["metrics"]["loss"]
    reply = read(content)
    assert (reply.refusal, reply.loss, reply.count) == (None, None, 5)
    del content["metrics"]["num-examples"]
    assert read(content).refusal[0] is Reason.MALFORMED


def test_size_is_checked_before_anything_is_read():
    assert read(RecordDict(), size=10**7).refusal[0] is Reason.OVERSIZED


def test_no_examples_means_the_arrays_are_not_read():
    reply = read(honest({"junk": np.ones(3, np.float32)}, **{"num-examples": 0}))
    assert reply.refusal is None
    assert reply.arrays is None


def test_an_evaluation_brings_its_correct_images():
    metrics = {"num-examples": 5, "receipt": 1, "loss": 0.5, "correct": 4}
    reply, correct = read_evaluate(answer(RecordDict({"metrics": MetricRecord(metrics)})))
    assert (reply.count, correct) == (5, 4)


def test_a_broken_evaluation_is_refused():
    reply, correct = read_evaluate(answer(RecordDict()))
    assert reply.refusal[0] is Reason.MALFORMED
    assert correct is None


def test_a_smaller_rank_is_expected_only_where_ranks_may_mix():
    current = start(rank=3) | {"plain": np.zeros((2, 2), np.float32)}
    assert current.shapes()["ctx.A"] == (4, 3)
    mixed = current.shapes(start(rank=2).shapes())
    assert (mixed["ctx.A"], mixed["ctx.B"], mixed["plain"]) == ((4, 2), (2, 32), (2, 2))


def test_a_larger_rank_is_not_expected():
    assert start(rank=2).shapes(start(rank=3).shapes())["ctx.A"] == (4, 2)


def test_what_a_strategy_reads_is_npy():
    record = to_numpy_record({"x": np.arange(3.0)})
    np.testing.assert_array_equal(record["x"].numpy(), [0, 1, 2])


def test_a_strategy_sees_checked_content_only():
    found = answer(honest())
    update = Accepted(0, 1000, {"ctx": np.ones((4, 32))}, 7, 0.25)
    (message,) = to_strategy([update], {1000: found.message})
    assert dict(message.content["metrics"]) == {"num-examples": 7}
    assert set(message.content) == {"arrays", "metrics"}


values = st.one_of(st.integers(-(2**62), 2**62), st.floats(), st.lists(st.floats(), max_size=3))


@settings(max_examples=100)
@given(st.dictionaries(st.sampled_from(["num-examples", "receipt", "loss", "x"]), values))
def test_no_metrics_crash_the_reader(metrics):
    content = honest()
    content["metrics"] = MetricRecord(metrics)
    read(content)
    read_evaluate(answer(RecordDict({"metrics": MetricRecord(metrics)})))
