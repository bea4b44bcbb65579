"""Who may speak, followed into a SuperLink's state: Flower's own, in memory."""

import json
import threading

import pytest
from flwr.server.superlink.linkstate import LinkStateFactory
from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.superlink.federation import NoOpFederationManager
from sqlalchemy.exc import OperationalError

from server.deployment import issuer, nodes, sites


def add(folder, name: str) -> None:
    sites.add(folder, name, issuer.ssh_pair(issuer.new_key())[1], 10)


def listed(folder) -> list[dict]:
    return json.loads((folder / nodes.NAME).read_bytes())["sites"]


@pytest.fixture
def state():
    federation = NoOpFederationManager()
    return LinkStateFactory(FLWR_IN_MEMORY_DB_NAME, federation, ObjectStoreFactory()).state()


def test_enrolled_keys_are_registered_once_and_keep_their_node(tmp_path, state):
    add(tmp_path, "a")
    nodes.sync(state, tmp_path)
    (first,) = listed(tmp_path)
    assert (first["number"], first["name"], first["online"], first["last_seen"]) == (
        0, "a", False, None,
    )  # fmt: skip
    add(tmp_path, "b")
    nodes.sync(state, tmp_path)
    nodes.sync(state, tmp_path)
    assert listed(tmp_path)[0] == first
    assert len({site["node"] for site in listed(tmp_path)}) == 2


def test_F15_a_revoked_key_is_refused_and_a_new_one_is_another_node(tmp_path, state):
    add(tmp_path, "a")
    nodes.sync(state, tmp_path)
    old = listed(tmp_path)[0]["node"]
    sites.revoke(tmp_path, "a")
    nodes.sync(state, tmp_path)
    assert listed(tmp_path) == []
    add(tmp_path, "a")
    nodes.sync(state, tmp_path)
    (again,) = listed(tmp_path)
    assert again["number"] == 1
    assert again["node"] != old


def test_a_damaged_list_is_logged_and_looked_at_again(tmp_path, state, monkeypatch, caplog):
    monkeypatch.setattr(nodes, "PAUSE", 0.01)
    stopped, looked = threading.Event(), threading.Event()
    (tmp_path / sites.NAME).write_bytes(b"{")
    monkeypatch.setattr(nodes._log, "error", lambda *_: looked.set())
    follower = threading.Thread(target=nodes.follow, args=(state, tmp_path, stopped))
    follower.start()
    try:
        assert looked.wait(30)
        (tmp_path / sites.NAME).unlink()
        add(tmp_path, "a")
        for _ in range(1000):
            if (tmp_path / nodes.NAME).exists() and listed(tmp_path):
                break
            stopped.wait(0.02)
    finally:
        stopped.set()
        follower.join(10)
    assert [site["name"] for site in listed(tmp_path)] == ["a"]


def test_F15_revocations_are_followed_after_a_fault_of_the_database(tmp_path, state, monkeypatch):
    """A thread that a locked database had ended would let a revoked key in for ever."""
    add(tmp_path, "a")
    nodes.sync(state, tmp_path)
    sites.revoke(tmp_path, "a")
    stopped, asked = threading.Event(), []

    def locked(**options):
        asked.append(options)
        if len(asked) == 1:
            raise OperationalError("SELECT", {}, Exception("database is locked"))
        stopped.set()
        return found(**options)

    found = state.get_node_info
    monkeypatch.setattr(nodes, "PAUSE", 0.01)
    monkeypatch.setattr(state, "get_node_info", locked)
    nodes.follow(state, tmp_path, stopped)
    assert listed(tmp_path) == []
