"""Replies that are hostile before the gate can look: unpacked by Flower's own network grid.

The SuperLink is a stub that hands out objects as a node stored them; everything from
`HttpGrid.pull_messages` on is what runs in a deployment.
"""

import hashlib
import json
import resource

import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.message_pb2 import ObjectTree, PullObjectResponse
from flwr.proto.runtime_pb2 import PullAppMessagesResponse
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid.http_grid import HttpGrid

from server.gate.replies import read_train
from server.gate.verdict import Reason
from server.rounds.exchange import exchange
from tests.sites import start

HOSTILE, HONEST = 1, 2
SENT = start().select(["ctx.A"])


class Stored:
    """Hold the objects of one reply, each under its own hash."""

    def __init__(self):
        self.contents = {}

    def put(self, kind, children, body):
        content = f"{kind} {','.join(children)} {len(body)}".encode() + b"\0" + body
        name = hashlib.sha256(content).hexdigest()
        self.contents[name] = content
        return name

    def json(self, kind, children, value):
        return self.put(kind, children, json.dumps(value).encode())

    def message(self, asked, content, reply_to=None):
        said = message_to_proto(Message(RecordDict(), reply_to=asked))
        said.metadata.reply_to_message_id = reply_to or asked.metadata.message_id
        said.ClearField("content")
        return self.put("Message", content, said.SerializeToString())


def arrays(stored, indices=(0,), shape=(4, 1), names=("ctx.A",), data=None):
    """Store a reply's records; ``indices`` say how often its one chunk is named."""
    data = SENT["ctx.A"].tobytes() if data is None else data
    chunk = stored.put("ArrayChunk", [], data)
    described = {"dtype": "float32", "shape": shape, "stype": "raw"}
    array = stored.json("Array", [chunk], described | {"arraychunk_ids": list(indices)})
    record = stored.json("ArrayRecord", [array], dict.fromkeys(names, array))
    return [stored.json("RecordDict", [record], {"arrays": record})]


def honest(stored, asked):
    return stored.message(asked, arrays(stored))


def bomb(stored, asked):
    return stored.message(asked, arrays(stored, [0] * 200_000, data=bytes(1_000_000)))


def crowd(stored, asked):
    names = [str(number) for number in range(100_000)]
    return stored.message(asked, arrays(stored, names=names, data=bytes(1_000_000)))


def not_json(stored, asked):
    return stored.message(asked, [stored.put("RecordDict", [], b"{")])


def deep(stored, asked):
    return stored.message(asked, [stored.put("RecordDict", [], b"[" * 100_000)])


def not_protobuf(stored, asked):
    record = stored.put("MetricRecord", [], b"\xff\xff")
    return stored.message(asked, [stored.json("RecordDict", [record], {"metrics": record})])


def unknown_kind(stored, asked):
    return stored.message(asked, [stored.put("os.system", [], b"true")])


def no_children(stored, asked):
    return stored.message(asked, [])


def missing_child(stored, asked):
    return stored.message(asked, ["0" * 64])


def shapeless(stored, asked):
    return stored.message(asked, arrays(stored, shape=7))


class Network(HttpGrid):
    """Flower's grid over a SuperLink that stores what two nodes sent."""

    def __init__(self, attack):
        super().__init__(token="none")
        self.set_run(Run.create_empty(1))
        self.attack, self.stored, self.fetched = attack, {}, 0

    @property
    def _runtime_client(self):
        return self

    def push_messages(self, messages):
        ids = {}
        for message in messages:
            name = f"asked-{message.metadata.dst_node_id}"
            message.metadata.__dict__["_message_id"] = name
            ids[name] = message
        for name, message in ids.items():
            reply, hostile = Stored(), message.metadata.dst_node_id == HOSTILE
            make = self.attack if hostile else honest
            root = make(reply, message)
            self.stored[name] = (root, reply.contents)
        return list(ids)

    def PullMessages(self, request):
        found = [self.stored[name] for name in request.message_ids if name in self.stored]
        answer = PullAppMessagesResponse()
        for (root, contents), name in zip(found, request.message_ids, strict=True):
            proto = ProtoMessage()
            proto.metadata.message_id, proto.metadata.reply_to_message_id = root, name
            answer.messages_list.append(proto)
            leaves = [ObjectTree(object_id=other) for other in contents if other != root]
            answer.message_object_trees.append(ObjectTree(object_id=root, children=leaves))
        self.served = {k: v for _, contents in found for k, v in contents.items()}
        return answer

    def PullObject(self, request):
        content = self.served.get(request.object_id)
        found = content is not None
        self.fetched += len(content or b"")
        return PullObjectResponse(
            object_found=found, object_available=bool(content), object_content=content or b""
        )

    def ConfirmMessageReceived(self, request):
        return None


@pytest.fixture(autouse=True)
def identity(monkeypatch):
    for name in ("_run_id", "_task_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


def ask(attack, grid=None):
    """Ask a hostile and an honest node; return their answers by node."""
    query = RecordDict({"config": ConfigRecord({"round": 1})})
    grid = grid or Network(attack)
    found, _ = exchange(grid, {HOSTILE: query, HONEST: query}, "train", 2.0)
    assert sorted(answer.node for answer in found) == [HOSTILE, HONEST]
    return {answer.node: answer for answer in found}


def test_F03_flower_itself_stops_at_a_damaged_reply():
    """Documents the library: why replies are pulled one at a time."""
    grid = Network(not_json)
    messages = [Message(RecordDict(), node, "train") for node in (HOSTILE, HONEST)]
    ids = grid.push_messages(messages)
    with pytest.raises(ValueError, match="Expecting property name"):
        grid.pull_messages(ids)


ATTACKS = [bomb, crowd, not_json, deep, not_protobuf, unknown_kind, no_children, missing_child]


@pytest.mark.parametrize("attack", [*ATTACKS, shapeless])
def test_F03_a_reply_that_cannot_be_unpacked_costs_nobody_else_s(attack):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = ask(attack)
    assert found[HOSTILE].message.has_error()
    assert "the reply is damaged" in found[HOSTILE].message.error.reason
    assert not found[HONEST].message.has_error()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 100_000  # kilobytes; the bomb and the crowd name 100 GB


def test_F04_a_reply_is_not_fetched_further_than_it_may_be_long():
    def flood(stored, asked):
        for number in range(200):
            stored.put("ArrayChunk", [], bytes([number]) * 200_000)
        return stored.message(asked, arrays(stored))

    grid = Network(flood)
    found = ask(flood, grid)
    assert "the reply has over 1,048,576 bytes" in found[HOSTILE].message.error.reason
    assert not found[HONEST].message.has_error()
    assert grid.fetched < 3_000_000  # of 40 million; what two threads are at is not called back


def test_F29_a_masked_vector_may_be_much_longer_than_what_was_sent():
    """Factors go down, all numbers of the dense prompt come up, 8 bytes each."""

    masked = bytes(1_500_000)

    def vector(stored, asked):
        record = ConfigRecord({"masked_params": [masked]})
        stored.contents[record.object_id] = record.deflate()
        content = stored.json("RecordDict", [record.object_id], {"config": record.object_id})
        return stored.message(asked, [content])

    grid, query = Network(vector), RecordDict({"config": ConfigRecord({"round": 1})})
    (refused,), _ = exchange(grid, {HOSTILE: query}, "train", 2.0)
    assert "has over 1,048,576 bytes" in refused.message.error.reason
    (found,), _ = exchange(grid, {HOSTILE: query}, "train", 2.0, room=4_000_000)
    assert found.message.content["config"]["masked_params"] == [masked]


def test_F18_what_is_announced_and_never_sent_is_waited_for_until_the_deadline():
    """Flower asks again for two hours, and nobody else's reply is looked at meanwhile."""

    def withheld(stored, asked):
        stored.contents["f" * 64] = b""  # so the SuperLink says: not here yet
        return stored.message(asked, arrays(stored))

    found = ask(withheld)
    assert read_train(found[HOSTILE], SENT, "float32", False).refusal[0] == Reason.WITHHELD
    assert not found[HONEST].message.has_error()


def test_F03_only_the_reply_of_honest_size_is_unpacked():
    found = ask(lambda stored, asked: stored.message(asked, arrays(stored, [0, 0])))
    (record,) = found[HOSTILE].message.content.array_records.values()
    assert record["ctx.A"].data == 2 * SENT["ctx.A"].tobytes()  # small: the gate refuses it
    refused = read_train(found[HOSTILE], SENT, "float32", False).refusal
    assert refused


@pytest.mark.parametrize(
    "shape", [["4", "1"], [4.0, 1.0], [None, 1], [[4], 1], [True, 1], [4, "1"]]
)
def test_F03_a_shape_of_another_type_is_refused_by_the_gate(shape):
    both = start()

    def attack(stored, asked):
        record = arrays(stored, shape=shape, names=tuple(both))
        return stored.message(asked, record)

    answer = ask(attack)[HOSTILE]
    for mixed in (False, True):
        assert read_train(answer, both, "float32", mixed).refusal


def test_F15_a_node_cannot_answer_in_another_s_name():
    """What a reply says of itself is its sender's claim; the SuperLink knows whose it is."""

    def forge(stored, asked):
        return stored.message(asked, arrays(stored, data=bytes(16)), reply_to=f"asked-{HONEST}")

    found = ask(forge)
    assert "another message" in found[HOSTILE].message.error.reason
    (record,) = found[HONEST].message.content.array_records.values()
    assert record["ctx.A"].data == SENT["ctx.A"].tobytes()
