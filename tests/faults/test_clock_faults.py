"""Clocks that are wrong: what holds of deadlines, and how wrong a site's may be (F34).

Our own deadlines are monotonic. What Flower measures by the wall clock is pinned here: the signed
time of a site's requests, and the time a message may live.
"""

import re
import time
from base64 import b64encode
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from fastapi import HTTPException
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.app.message import message as flower_message
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.proto.fleet_pb2 import RegisterNodeFleetRequest
from flwr.server.utils.validator import validate_message
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.date import now
from flwr.supercore.primitives.asymmetric import (
    generate_key_pairs,
    public_key_to_bytes,
    sign_message,
)
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.routers.fleet.node_auth import authenticate_node

from server.rounds.local_grid import LocalGrid
from server.rounds.loop import Rounds
from tests.sites import client, config, start, task

ROOT = Path(__file__).parents[2]
DEADLINE = 600.0  # seconds, as server.deadline has it


def request(skew):
    """Return a site's signed request, its clock wrong by so many seconds."""
    private, public = generate_key_pairs()
    key, signed = public_key_to_bytes(public), (now() + timedelta(seconds=skew)).isoformat()
    headers = {
        FLEET_HTTP_PUBLIC_KEY_HEADER: b64encode(key).decode(),
        FLEET_HTTP_SIGNATURE_HEADER: b64encode(sign_message(private, signed.encode())).decode(),
        TIMESTAMP_HEADER: signed,
    }
    state = SimpleNamespace(protobuf_request=RegisterNodeFleetRequest(public_key=key))
    return SimpleNamespace(headers=headers, state=state)


@pytest.mark.parametrize("skew", [-295, 0, 3])
def test_F34_a_sites_clock_may_be_5_s_ahead_and_5_min_behind(skew):
    authenticate_node(request(skew))


@pytest.mark.parametrize("skew", [-3600, -310, 7, 3600])
def test_F34_a_site_whose_clock_is_further_off_is_refused_by_flower(skew):
    with pytest.raises(HTTPException, match="401"):
        authenticate_node(request(skew))


def reply(monkeypatch, skew):
    """Return a message's end by the server's clock, and the reply of a site whose clock is off."""
    TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 1, 7
    message = Message(RecordDict({"x": ConfigRecord({})}), 7, "train", ttl=DEADLINE)
    message.metadata.__dict__ |= {"_message_id": "m", "_run_id": 1, "_src_node_id": 1}
    end = message.metadata.created_at + message.metadata.ttl
    with monkeypatch.context() as patch:
        patch.setattr(flower_message, "now", lambda: now() + timedelta(seconds=skew))
        answer = Message(RecordDict(), reply_to=message)
    answer.metadata.__dict__["_message_id"] = "r"
    return end, answer


@pytest.mark.parametrize("skew", [-295, -60, 0, 3])
def test_F34_a_reply_ends_when_its_message_does_whatever_the_sites_clock_says(monkeypatch, skew):
    end, answer = reply(monkeypatch, skew)
    assert answer.metadata.created_at + answer.metadata.ttl == pytest.approx(end, abs=1e-3)
    assert validate_message(answer, is_reply_message=True) == []


def test_F34_a_clock_ahead_by_more_than_the_deadline_could_never_answer(monkeypatch):
    """It does not come that far: node authentication refuses it at 5 s."""
    _, answer = reply(monkeypatch, DEADLINE + 1)
    assert "`metadata.ttl` must be higher than zero" in validate_message(answer, True)


@pytest.mark.parametrize("step", [-86400.0, 86400.0])
def test_F34_a_step_of_the_servers_clock_in_a_run_changes_nothing(tmp_path, monkeypatch, step):
    """As NTP or an administrator sets it, in the middle of every round, by a day."""
    clock = time.time
    jumps = iter(range(1, 1000))

    def jump(message, content):
        offset = step * next(jumps)
        monkeypatch.setattr(time, "time", lambda: clock() + offset)
        return content

    def run(folder, app):
        with LocalGrid(app, 3, {}) as grid:
            return Rounds(grid, task(start()), config(folder), 3).run()

    still = run(tmp_path / "still", client())
    found = run(tmp_path / "jumping", client(train={1: jump}))
    assert (found.round, found.conduct.strikes) == (3, {})
    assert all(found.arrays[n].tobytes() == still.arrays[n].tobytes() for n in still.arrays)


def test_F34_no_deadline_of_ours_is_taken_from_the_wall_clock():
    """``time.time`` is left to what is compared with files' times and Flower's own stamps."""
    allowed = {
        "server/run_folder/online_nodes.py",
        "server/run_folder/trackers/mlflow.py",
        "client/deployment/tls_probe.py",
    }
    found = {
        str(path.relative_to(ROOT))
        for folder in ("fedprompt", "server", "client", "export")
        for path in (ROOT / folder).rglob("*.py")
        if re.search(r"\btime\.time\(\)", path.read_text())
    }
    assert found <= allowed
