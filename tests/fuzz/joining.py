"""Identity cards: what a node answers when it is asked who it is."""

from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage

from fedprompt.round_record import RoundRecord
from server.gate.verdict import recorded
from server.joining.roster import Roster
from server.rounds.exchange import Answer
from tests.fuzz.draw import Draw
from tests.fuzz.replies import message_of
from tests.sites import ENROLLED, IDENTITY

CAP = 1 << 16
_KEYS = (*IDENTITY, "partition", "num-examples", "extra")


def feed(data: bytes) -> None:
    """Let two nodes that answer alike into an empty roster."""
    draw = Draw(data)
    message = _raw(draw.rest()) if draw.byte() % 2 else _bent(draw)
    if message is None:
        return
    roster = Roster(IDENTITY)
    for node in (1000, 1001):
        roster._admit(Answer(node, message, len(data)), None)
    RoundRecord(round=0, refused=recorded(roster.refused.values())).to_json()
    roster.sample(0.5, "seed")


def seeds() -> list[bytes]:
    """Return honest cards as protobuf and as recipes, and one error."""
    honest = message_to_proto(message_of(RecordDict({"identity": _card()}), 1000))
    failed = message_to_proto(message_of(None, 1000, Error(code=1, reason="no such file")))
    raw = [b"\1" + proto.SerializeToString() for proto in (honest, failed)]
    lists = [b'["cat"]', b'["dog","cat"]', b"{}", b"[" * 200, b'"', b"[1e999]", b"\xff"]
    return [*raw, b"", *(bytes([0, 1, 3, 0, len(text)]) + text for text in lists)]


def _bent(draw: Draw) -> Message:
    card = _card()
    for _ in range(draw.byte() % 8):
        key = draw.choice(_KEYS)
        kind = draw.byte() % 5
        if kind == 4:
            card.pop(key, None)
            continue
        text = draw.take(draw.byte()).decode("utf-8", "replace")
        card[key] = (text, draw.integer(), draw.number(), text.encode())[kind]
    return message_of(RecordDict({"identity": card}), 1000)


def _card() -> ConfigRecord:
    return ConfigRecord({**IDENTITY, "partition": 0, "num-examples": ENROLLED})


def _raw(data: bytes) -> Message | None:
    try:
        return message_from_proto(ProtoMessage.FromString(data))
    except Exception:  # Flower's own parser, before ours
        return None
