"""The in-process grid: Flower's contract, without Flower's processes."""

import threading
import time

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.serverapp.strategy import FedAvg
from flwr.supercore.run import Run

from fedprompt.errors import DataError
from server.rounds.local_grid import LocalGrid
from tests.sites import IDENTITY, client
from tests.waiting import until


def query(node, ttl=10.0):
    return Message(RecordDict({"config": ConfigRecord(dict(IDENTITY))}), node, "query", ttl=ttl)


def partition(reply):
    return reply.content["identity"]["partition"]


def test_sites_know_their_partition_and_replies_keep_the_order():
    with LocalGrid(client(), 5, {}) as grid:
        nodes = list(grid.get_node_ids())
        replies = list(grid.send_and_receive([query(node) for node in reversed(nodes)]))
        assert [partition(reply) for reply in replies] == [4, 3, 2, 1, 0]


def test_run_config_and_context_reach_the_site():
    app = ClientApp()

    @app.query()
    def _query(message, context):
        told = {"x": context.run_config["data.alpha"], "n": context.node_config["num-partitions"]}
        return Message(RecordDict({"told": ConfigRecord(told)}), reply_to=message)

    with LocalGrid(app, 3, {"data.alpha": 0.25}) as grid:
        (reply,) = grid.send_and_receive([query(1000)])
        assert dict(reply.content["told"]) == {"x": 0.25, "n": 3}


def test_what_a_site_raises_becomes_an_error_reply(caplog):
    app = ClientApp()

    @app.query()
    def _query(message, context):
        raise ValueError("broken pipe")

    with LocalGrid(app, 1, {}) as grid:
        (reply,) = grid.send_and_receive([query(1000)])
    assert reply.error.code == ErrorCode.CLIENT_APP_RAISED_EXCEPTION
    assert "broken pipe" in reply.error.reason
    assert "site 0 raised" in caplog.text


def test_what_is_no_reply_becomes_an_error_reply():
    app = ClientApp()

    @app.query()
    def _query(message, context):
        return None

    with LocalGrid(app, 1, {}) as grid:
        (reply,) = grid.send_and_receive([query(1000)])
    assert reply.error.code == ErrorCode.CLIENT_APP_RAISED_EXCEPTION


def test_a_message_that_expired_while_it_waited_is_not_worked_on():
    busy = []
    with LocalGrid(slow(0.3, busy), 1, {}) as grid:
        _, reply = grid.send_and_receive([query(1000), query(1000, ttl=0.1)])
    assert reply.error.code == ErrorCode.MESSAGE_UNAVAILABLE
    assert len(busy) == 2


@pytest.mark.parametrize("step", [-1e6, 1e6])
def test_F34_a_step_of_the_wall_clock_spends_no_messages_time(monkeypatch, step):
    began = time.time()
    with LocalGrid(client(), 1, {}) as grid:
        message = query(1000)
        monkeypatch.setattr(time, "time", lambda: began + step)
        message.metadata.created_at += step
        (reply,) = grid.send_and_receive([message])
    assert not reply.has_error()


def slow(seconds, busy):
    app = ClientApp()

    @app.query()
    def _query(message, context):
        busy.append(context.node_id)
        time.sleep(seconds)
        busy.append(context.node_id)
        return Message(RecordDict({"x": ConfigRecord({})}), reply_to=message)

    return app


def held(release, node=None):
    """Return an app whose sites, or one of them, answer once they are released."""
    app = ClientApp()

    @app.query()
    def _query(message, context):
        if node in (None, context.node_id):
            release.wait()
        return Message(RecordDict({"x": ConfigRecord({})}), reply_to=message)

    return app


def test_a_timeout_leaves_a_slow_site_behind():
    release = threading.Event()
    with LocalGrid(held(release), 1, {}) as grid:
        assert list(grid.send_and_receive([query(1000)], timeout=0.1)) == []
    release.set()


def test_workers_run_sites_at_the_same_time_but_never_one_site_twice():
    busy = []
    with LocalGrid(slow(0.2, busy), 2, {}, workers=4) as grid:
        list(grid.send_and_receive([query(n) for n in (1000, 1001, 1000, 1001)]))
    assert {busy[0], busy[1]} == {1000, 1001}
    for node in (1000, 1001):  # in, out, in, out
        assert [n for n in busy if n == node] == [node] * 4


def test_results_do_not_depend_on_workers():
    def run(workers):
        with LocalGrid(client(), 6, {}, workers) as grid:
            replies = grid.send_and_receive([query(node) for node in grid.get_node_ids()])
            return [partition(reply) for reply in replies]

    assert sorted(run(1)) == sorted(run(4)) == list(range(6))


def test_state_stays_with_the_site_between_messages():
    app = ClientApp()

    @app.query()
    def _query(message, context):
        count = context.state.metric_records.setdefault("seen", MetricRecord({"n": 0}))
        count["n"] += 1
        return Message(RecordDict({"n": MetricRecord({"n": count["n"]})}), reply_to=message)

    with LocalGrid(app, 2, {}) as grid:
        for expected in (1, 2):
            (reply,) = grid.send_and_receive([query(1001)])
            assert reply.content["n"]["n"] == expected


def test_flowers_own_strategy_loop_runs_on_it():
    app = ClientApp()

    @app.train()
    def _train(message, context):
        array = message.content["arrays"]["w"].numpy() + context.node_config["partition-id"]
        content = {
            "arrays": ArrayRecord({"w": Array(array)}),
            "metrics": MetricRecord({"num-examples": 1}),
        }
        return Message(RecordDict(content), reply_to=message)

    with LocalGrid(app, 4, {}) as grid:
        strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=4, min_available_nodes=4)
        result = strategy.start(grid, ArrayRecord({"w": Array(np.zeros(2))}), num_rounds=2)
    np.testing.assert_allclose(result.arrays["w"].numpy(), 3.0)  # twice the mean of 0..3


def test_size_is_known_once():
    with LocalGrid(client(), 1, {}) as grid:
        (reply,) = grid.send_and_receive([query(1000)])
        assert grid.size(reply) > 100
        with pytest.raises(KeyError):
            grid.size(reply)


def test_late_replies_are_not_kept_for_ever():
    release = threading.Event()
    with LocalGrid(held(release, 1000), 2, {}, workers=2) as grid:
        assert list(grid.send_and_receive([query(1000, ttl=0.1)], timeout=0.1)) == []
        release.set()
        until(lambda: all(reply.ready() for reply in grid._pending.values()))
        list(grid.send_and_receive([query(1001)]))
        assert grid._pending == grid._expiry == {}


def test_the_run_and_messages_of_flowers_interface():
    with LocalGrid(client(), 1, {}) as grid:
        grid.set_run(Run.create_empty(9))
        assert grid.run.run_id == 9
        message = grid.create_message(RecordDict(), "query", 1000, "1", ttl=3.0)
        assert (message.metadata.dst_node_id, message.metadata.ttl) == (1000, 3.0)


def test_leaving_does_not_wait_for_a_site_that_hangs():
    release = threading.Event()
    with LocalGrid(held(release), 1, {}) as grid:
        grid.push_messages([query(1000)])
    assert not release.is_set()
    release.set()


def test_an_error_of_our_own_is_logged_without_a_traceback(caplog):
    app = ClientApp()

    @app.query()
    def _query(message, context):
        raise DataError("cannot divide 3 images among 10 sites")

    with LocalGrid(app, 1, {}) as grid:
        list(grid.send_and_receive([query(1000)]))
    (entry,) = [entry for entry in caplog.records if entry.name == "server.rounds.local_grid"]
    assert entry.getMessage() == "site 0: cannot divide 3 images among 10 sites"
    assert not entry.exc_info
