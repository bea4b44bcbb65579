"""Who is connected, as flower-server says it."""

import json
import os
import time

import pytest

from server.run_folder import online_nodes
from server.run_folder.online_nodes import Presence

SITES = [
    {"number": 0, "name": "site-a", "online": True, "last_seen": "2026-11-23T20:00:00+00:00"},
    {"number": 3, "name": "site-b", "online": False, "last_seen": None},
]


def test_every_site_is_read(tmp_path):
    path = tmp_path / "nodes.json"
    path.write_text(json.dumps({"sites": SITES}))
    assert online_nodes.read(path) == [
        Presence(0, "site-a", True, 1795464000.0), Presence(3, "site-b", False, None),
    ]  # fmt: skip


def test_an_old_file_says_nobody_is_connected(tmp_path):
    path = tmp_path / "nodes.json"
    path.write_text(json.dumps({"sites": SITES}))
    old = time.time() - 3600
    os.utime(path, (old, old))
    assert [(site.online, site.last_seen) for site in online_nodes.read(path)] == [
        (False, 1795464000.0), (False, None),
    ]  # fmt: skip


@pytest.mark.parametrize("junk", ["", "[]", "{}", '{"sites": [1]}', '{"sites": [{"number": 0}]}'])
def test_junk_is_nobody(tmp_path, junk):
    (tmp_path / "nodes.json").write_text(junk)
    assert online_nodes.read(tmp_path / "nodes.json") == []
    assert online_nodes.read(tmp_path / "none") == []
