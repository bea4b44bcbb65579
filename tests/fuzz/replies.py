"""Replies to a training or evaluation: wire bytes, then what the gate makes of them.

The first byte chooses: a raw protobuf message, or an honest reply bent field by field. Flower's
deserialiser stands before ours and may raise what it likes (`server.rounds.exchange` drops such a
reply); whatever it lets through, ours must turn into verdicts.
"""

import functools
import math

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.app.message.message import make_message
from flwr.app.metadata import Metadata
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage

from fedprompt.identity import canonical_json
from fedprompt.prompt_state import PromptState
from fedprompt.round_record import RoundRecord
from fedprompt.wire import RAW, to_array_record
from server.gate.judge import check_sender, judge
from server.gate.norms import Bounds
from server.gate.receipts import Receipts
from server.gate.replies import read_evaluate, read_train
from server.gate.verdict import Asked, Reply, recorded
from server.joining.admission import Site
from server.merge.rules import RULES, Dense
from server.rounds.exchange import Answer
from tests.fuzz.draw import Draw
from tests.sites import ENROLLED, IDENTITY, start

ROUND, NODES = 7, {1000 + site: site for site in range(3)}
CURRENT = start(length=4, rank=4, width=256)
CAP = 4 * sum(array.nbytes for array in CURRENT.values())  # the gate's own (F04)
_RECEIPTS = Receipts("run", IDENTITY)
_NAMES = ("ctx.A", "ctx.B", "ctx.start", "", "ctx.A.A", "ctx.B\x00")
_SIZES = (0, 1, 2, 4, 8, 256, -1, 2**31, 2**62, 10**30, True)


def feed(data: bytes) -> None:
    """Judge one reply alone, doubled or beside an honest one."""
    draw = Draw(data)
    message = _raw(draw.rest()) if draw.byte() % 2 else bent(draw)
    if message is None:
        return
    answer = Answer(1000, message, len(data))
    reply, correct = read_evaluate(answer)
    check_sender([reply], _asked())
    if reply.refusal is None:
        canonical_json(str(correct))
    rule = ("product", "factors")[len(data) // 3 % 2]
    reply = read_train(answer, CURRENT, "float32", RULES[rule].mixed_ranks)
    honest = _honest_reply(1001, rule)
    _judge(([reply], [reply, reply], [honest, reply])[len(data) % 3], rule)


def seeds() -> list[bytes]:
    """Return honest replies, as protobuf and as recipes, and some of each kind of lie."""
    honest = [message_of(_honest_content(n), n) for n in NODES]
    lost = [message_of(None, 1000, Error(code=code, reason="gone")) for code in (0, 7, 203)]
    raw = [b"\1" + message_to_proto(m).SerializeToString() for m in honest + lost]
    return [*raw, b"", *(bytes([0, kind, *range(40)]) for kind in range(8))]


def bent(draw: Draw) -> Message:
    """Return an honest message with some of its fields replaced."""
    if draw.byte() == 255:
        return message_of(None, 1000, Error(code=draw.byte(), reason=draw.text()))
    content = _honest_content(1000)
    for _ in range(draw.byte() % 8):
        draw.choice((_bend_array, _bend_metric, _bend_records, _bend_value))(draw, content)
    return message_of(content, draw.choice((1000, 1001, draw.integer())))


def _judge(replies: list[Reply], rule: str) -> None:
    lift = RULES[rule].lift
    accepted, verdicts = judge(replies, _asked(), _lifted(rule), lift, Bounds(5.0, 0.0))
    for update in accepted:
        if not all(np.isfinite(array).all() for array in update.update.values()):
            raise AssertionError("the gate let through what is not finite")
        told = update.loss is None or math.isfinite(update.loss)  # a site may withhold it
        if not (0 < update.weight <= ENROLLED and told):
            raise AssertionError(f"the gate let through {update.weight}, {update.loss}")
    RoundRecord(round=1, verdicts=recorded(verdicts)).to_json()


def _bend_array(draw: Draw, content: RecordDict) -> None:
    name = draw.choice(_NAMES)
    array = Array(
        dtype=draw.choice(("float32", "float16", "float64", "<f4", "O", "")),
        shape=(4, 4) if name == "ctx.A" else (4, 256),
        stype=draw.choice((RAW, "numpy.ndarray", "")),
        data=draw.take(draw.choice((64, 4096, 0, 16, 255))),
    )
    if draw.byte() % 2:  # unpacked from JSON: any whole number is possible, true and false too
        array.shape = tuple(draw.choice(_SIZES) for _ in range(draw.byte() % 4))
    record = content.array_records.get("arrays")
    if record is not None:
        record[name] = array


def _bend_value(draw: Draw, content: RecordDict) -> None:
    record = content.array_records.get("arrays", {})
    for array in record.values():
        value = np.frombuffer(draw.take(4).ljust(4, b"\0"), "<f4")
        values = np.frombuffer(array.data, np.uint8).copy()
        count = len(values) // 4
        if count:
            place = draw.integer() % count
            end = place + 1 if draw.byte() % 2 else count
            values[: count * 4].view("<f4")[place:end] = value
        array.data = values.tobytes()


def _bend_metric(draw: Draw, content: RecordDict) -> None:
    record = content.metric_records.get("metrics")
    if record is None:
        return
    name = draw.choice(("num-examples", "receipt", "loss", "correct", "extra"))
    if draw.byte() % 8 == 7:
        record.pop(name, None)
        return
    record[name] = draw.choice(
        (
            draw.integer(),
            draw.number(),
            [draw.integer()] * (draw.byte() % 4),
            [draw.number()] * (draw.byte() % 4),
            _RECEIPTS.of(Site(0, 1000, ENROLLED), draw.byte()),
        )
    )


def _bend_records(draw: Draw, content: RecordDict) -> None:
    name = draw.choice(("arrays", "metrics", "config", ""))
    if draw.byte() % 2:
        content.pop(name, None)
    else:
        content[name] = draw.choice((ArrayRecord(), MetricRecord({"x": 1}), ConfigRecord()))


def _raw(data: bytes) -> Message | None:
    try:
        return message_from_proto(ProtoMessage.FromString(data))
    except Exception:  # Flower's own parser, before ours
        return None


def _honest_content(node: int) -> RecordDict:
    receipt = _asked()[node].receipt
    metrics = MetricRecord({"num-examples": ENROLLED, "receipt": receipt, "loss": 0.5})
    return RecordDict({"arrays": to_array_record(_moved(node), "float32"), "metrics": metrics})


@functools.cache
def _moved(node: int) -> PromptState:
    rng = np.random.default_rng(node)
    return PromptState({n: a + rng.normal(size=a.shape) / 10 for n, a in CURRENT.items()})


@functools.cache
def _lifted(rule: str) -> Dense:
    return RULES[rule].lift(CURRENT)


def message_of(content: RecordDict | None, node: int, error: Error | None = None) -> Message:
    metadata = Metadata(1, "", node, 1, "asked", "", 0.0, 60.0, "train")
    return make_message(metadata=metadata, content=content, error=error)


@functools.cache
def _honest_reply(node: int, rule: str) -> Reply:
    answer = Answer(node, message_of(_honest_content(node), node), 0)
    return read_train(answer, CURRENT, "float32", RULES[rule].mixed_ranks)


@functools.cache
def _asked() -> dict[int, Asked]:
    return {n: _RECEIPTS.ask(Site(site, n, ENROLLED), ROUND) for n, site in NODES.items()}
