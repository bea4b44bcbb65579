"""Turn Flower messages into the gate's plain replies, and accepted updates back into messages."""

import re
from collections.abc import Iterable, Mapping

from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.common.constant import ErrorCode

from fedprompt.identity import canonical_json, sha256_bytes
from fedprompt.prompt_state import PromptState
from fedprompt.text import one_line
from fedprompt.wire import ARRAYS, DECLINED, METRICS, WireError, from_array_record
from server.gate.verdict import Accepted, Reason, Reply
from server.merge.rules import Dense
from server.rounds.exchange import Answer, Fault

TRAIN_METRICS = frozenset({"num-examples", "receipt"})
WITHHELD = frozenset({"loss"})  # a site's policy may keep it in
EVALUATE_METRICS = frozenset({"num-examples", "receipt", "loss", "correct"})

_SIZE_CAP = 4  # times the bytes of the arrays sent; a larger message is not looked into (F04)
_LEAST_CAP = 4096  # bytes; the framing of a small prompt is as large as the prompt itself
_FAULTS: dict[int, Reason] = {  # what the server itself says of a reply
    ErrorCode.MESSAGE_UNAVAILABLE: Reason.TIMEOUT,
    ErrorCode.NODE_UNAVAILABLE: Reason.TIMEOUT,
    # it has expired before the message it answers: by its sender's choice
    ErrorCode.REPLY_MESSAGE_UNAVAILABLE: Reason.WITHHELD,
    Fault.WITHHELD: Reason.WITHHELD,
    Fault.TRESPASS: Reason.TRESPASS,
}
_RAISED = re.compile(r"^<class '(?:\w+\.)*(\w+)'>:<'(.*)'>$", re.DOTALL)  # as Flower tells of it
_SHOWN = 200  # characters of a site's error message that are kept


def read_train(answer: Answer, current: PromptState, dtype: str, mixed_ranks: bool) -> Reply:
    """Unpack one reply to a train message; what is wrong with it becomes its refusal."""
    if refusal := _envelope(answer, TRAIN_METRICS, {ARRAYS, METRICS}, current, WITHHELD):
        return Reply(answer.node, refusal)
    content = answer.message.content
    metrics = content.metric_records[METRICS]
    count, receipt = metrics["num-examples"], metrics["receipt"]
    if count == 0:  # abstains: whatever the arrays are, they are not read
        return Reply(answer.node, count=count, receipt=receipt)
    record = content.array_records[ARRAYS]
    try:
        claimed = {name: tuple(record[name].shape) for name in current if name in record}
        shapes = current.shapes(claimed if mixed_ranks else None)
        arrays = from_array_record(record, shapes, dtype)
    except WireError as error:
        return Reply(answer.node, (Reason(error.reason.value), str(error)))
    return Reply(answer.node, None, arrays, count, receipt, metrics.get("loss"), digest(record))


def digest(record: ArrayRecord) -> str:
    """Return what a site can compare with its own log: the hash of its arrays' hashes, by name."""
    hashes = {name: sha256_bytes(array.data) for name, array in record.items()}
    return sha256_bytes(canonical_json(hashes))


def read_evaluate(answer: Answer) -> tuple[Reply, object]:
    """Unpack one reply to an evaluate message, and its number of correct images."""
    if refusal := _envelope(answer, EVALUATE_METRICS, {METRICS}, PromptState()):
        return Reply(answer.node, refusal), None
    metrics = answer.message.content.metric_records[METRICS]
    reply = Reply(
        answer.node,
        count=metrics["num-examples"],
        receipt=metrics["receipt"],
        loss=metrics["loss"],
    )
    return reply, metrics["correct"]


def error_line(message: Message) -> str:
    """Return what went wrong at a site in one line of bearable length."""
    return one_line(_RAISED.sub(r"\1: \2", f"{message.error.reason}"), _SHOWN)


def fault(message: Message) -> Reason:
    """Return what an error reply stands for: a lost node, a site's right, or a fault."""
    if message.error.code in _FAULTS:
        return _FAULTS[message.error.code]
    return Reason.DECLINED if error_line(message).startswith(DECLINED) else Reason.ERROR


def to_numpy_record(arrays: Dense) -> ArrayRecord:
    """Pack lifted arrays as Flower's strategies read them; they never leave the server."""
    return ArrayRecord({name: Array(array) for name, array in arrays.items()})


def to_strategy(updates: Iterable[Accepted], answers: Mapping[int, Message]) -> list[Message]:
    """Return the messages a strategy merges: the sites' own, with checked content only."""
    messages = []
    for update in updates:
        message = answers[update.node]
        metrics = MetricRecord({"num-examples": update.weight})  # all that a strategy reads
        message.content = RecordDict({ARRAYS: to_numpy_record(update.update), METRICS: metrics})
        messages.append(message)
    return messages


def _envelope(
    answer: Answer,
    metrics: frozenset[str],
    records: set[str],
    current: PromptState,
    optional: frozenset[str] = frozenset(),
) -> tuple[Reason, str] | None:
    """Return what is wrong with a message before its values are read."""
    message = answer.message
    if message.has_error():
        return fault(message), error_line(message)
    cap = max(_LEAST_CAP, _SIZE_CAP * sum(array.nbytes for array in current.values()))
    if answer.size > cap:
        return Reason.OVERSIZED, f"the message has {answer.size} bytes, at most {cap} are read"
    if message.metadata.src_node_id != answer.node:
        return Reason.IDENTITY, f"node {message.metadata.src_node_id} answered for {answer.node}"
    content = message.content
    if set(content) != records:
        return Reason.MALFORMED, f"records {sorted(content)[:5]}, expected {sorted(records)}"
    found = set(content.metric_records.get(METRICS, ()))
    if METRICS not in content.metric_records or found - optional != metrics:
        return Reason.MALFORMED, f"the metrics are not {sorted(metrics)}"
    if ARRAYS in records and ARRAYS not in content.array_records:
        return Reason.MALFORMED, "the arrays are no array record"
    return None
