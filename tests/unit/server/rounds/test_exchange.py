"""Sending and collecting with a deadline, on a grid that may be silent, slow or confused."""

import time

import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict

from server.rounds.exchange import LINGER, MeasuringGrid, Traffic, exchange
from server.rounds.local_grid import LocalGrid
from server.rounds.sampled_grid import ChosenGrid
from tests.sites import IDENTITY, client


@pytest.fixture
def grid():
    with LocalGrid(client(), 3, {}) as grid:
        yield grid


def query():
    return RecordDict({"config": ConfigRecord(dict(IDENTITY))})


def test_every_asked_node_answers(grid):
    seen = []
    answers, traffic = exchange(grid, dict.fromkeys([1002, 1000], query()), "query", 5, seen.append)
    assert sorted(answer.node for answer in answers) == [1000, 1002]
    assert seen[-1] == 2
    assert traffic.up == sum(answer.size for answer in answers) > 0
    assert traffic.down > 0


def test_nobody_to_ask_is_no_error(grid):
    assert exchange(grid, {}, "query", 5) == ([], Traffic(0, 0))


def test_traffic_adds_up():
    assert Traffic(1, 2) + Traffic(10, 20) == Traffic(11, 22)


def test_messages_outlive_the_deadline_by_a_fixed_time(grid):
    sent = []
    original = grid.push_messages
    grid.push_messages = lambda messages: sent.extend(messages) or original(messages)
    exchange(grid, {1000: query()}, "query", 7.5)
    assert sent[0].metadata.ttl == 7.5 + LINGER


class Silent(ChosenGrid):
    """Take messages and never answer; report one node's death under another id."""

    def __init__(self, grid, dead=None):
        super().__init__([1, 2], grid.run)
        self.dead, self.sent = dead, []

    def push_messages(self, messages):
        self.sent = list(messages)
        for i, message in enumerate(self.sent):
            message.metadata.__dict__["_message_id"] = str(i)
        return [str(i) for i in range(len(self.sent))]

    def pull_messages(self, message_ids):
        asked = [m for m in self.sent if m.metadata.message_id in message_ids]
        found = [m for m in asked if m.metadata.dst_node_id == self.dead]
        self.sent = [m for m in self.sent if m not in found]
        replies = [Message(Error(5, "gone"), reply_to=message) for message in found]
        for reply in replies:
            reply.metadata.__dict__["_src_node_id"] = 1  # as Flower reports it
        return replies


def test_the_deadline_holds(grid):
    began = time.monotonic()
    answers, _ = exchange(Silent(grid), {1: query(), 2: query()}, "query", 0.3)
    assert answers == []
    assert time.monotonic() - began >= 0.3


def test_a_dead_node_is_known_by_the_message_it_did_not_answer(grid):
    answers, _ = exchange(Silent(grid, dead=2), {1: query(), 2: query()}, "query", 0.2)
    assert [answer.node for answer in answers] == [2]
    assert answers[0].size > 0


def test_only_our_grid_measures(grid):
    assert isinstance(grid, MeasuringGrid)
    assert not isinstance(Silent(grid), MeasuringGrid)
