"""The view a strategy plans with."""

import pytest
from flwr.app import RecordDict
from flwr.supercore.run import Run

from server.rounds.sampled_grid import ChosenGrid


def test_only_the_chosen_nodes_are_there():
    grid = ChosenGrid([7, 3], Run.create_empty(1))
    assert list(grid.get_node_ids()) == [7, 3]
    grid.set_run(Run.create_empty(2))
    assert grid.run.run_id == 2


def test_nothing_is_sent_through_it():
    grid = ChosenGrid([1], Run.create_empty(1))
    for call in (grid.push_messages, grid.pull_messages, grid.send_and_receive):
        with pytest.raises(NotImplementedError):
            call([])


def test_messages_can_be_made(monkeypatch):
    from server.rounds.local_grid import LocalGrid
    from tests.sites import client

    with LocalGrid(client(), 1, {}):  # a Message needs a task's identity
        message = ChosenGrid([1], Run.create_empty(1)).create_message(RecordDict(), "train", 1, "1")
    assert message.metadata.message_type == "train"
