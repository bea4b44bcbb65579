"""Check what a site answers in each stage of SecAgg+ before Flower's workflow reads it.

The workflow would add a broadcastable vector, follow a header that claims any size, and stop at a
missing key. What a masked vector holds cannot be checked by anybody.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from flwr.app import ConfigRecord, RecordDict
from flwr.common import ndarray_to_bytes
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key, Stage
from flwr.supercore.primitives.asymmetric import bytes_to_public_key

from server.gate.verdict import Asked, Reason

Complaint = tuple[Reason, str]
_KEY_BYTES = 1024  # a public key in PEM has about 200
_FIT = frozenset({"fitres.parameters", "fitres.num_examples", "fitres.metrics", "fitres.status"})


@dataclass(frozen=True)
class Expected:
    """Hold what the stages of one try must bring."""

    asked: Mapping[int, Asked]  # by node
    entries: int  # of a masked vector


def complaint(stage: str, node: int, content: RecordDict, expected: Expected) -> Complaint | None:
    """Return what is wrong with a site's answer; None if the workflow may read it."""
    records = {RECORD_KEY_CONFIGS} | (_FIT if stage == Stage.COLLECT_MASKED_VECTORS else set())
    if set(content) != records or RECORD_KEY_CONFIGS not in content.config_records:
        return Reason.MALFORMED, f"records {sorted(content)[:5]}, expected {sorted(records)}"
    answer = content.config_records[RECORD_KEY_CONFIGS]
    if stage == Stage.SETUP:
        return _keys(answer)
    if stage == Stage.SHARE_KEYS:
        return _addressed(answer, Key.DESTINATION_LIST, Key.CIPHERTEXT_LIST, expected)
    if stage == Stage.UNMASK:
        return _addressed(answer, Key.NODE_ID_LIST, Key.SHARE_LIST, expected)
    return _bound(node, content, expected) or _masked(answer, expected.entries)


def weight(content: RecordDict) -> object:
    """Return whether a site says that it trained: 1, or 0 where it has no images."""
    found = content.metric_records.get("fitres.num_examples")
    return found.get("num_examples") if found else None


def _keys(answer: ConfigRecord) -> Complaint | None:
    for name in (Key.PUBLIC_KEY_1, Key.PUBLIC_KEY_2):
        value = answer.get(name)
        if not isinstance(value, bytes) or len(value) > _KEY_BYTES:
            return Reason.MALFORMED, f"{name} is no public key"
        try:
            bytes_to_public_key(value)
        except Exception as error:  # whatever a parser of outside bytes finds: the key is bad
            return Reason.MALFORMED, f"{name} is no public key: {type(error).__name__}"
    return None


def _addressed(
    answer: ConfigRecord, nodes: str, secrets: str, expected: Expected
) -> Complaint | None:
    to, texts = answer.get(nodes), answer.get(secrets)
    if not isinstance(to, list) or not isinstance(texts, list) or len(to) != len(texts):
        return Reason.MALFORMED, f"{nodes} and {secrets} are no lists of one length"
    if len(set(to)) != len(to) or not set(to) <= set(expected.asked):
        return Reason.MALFORMED, f"{nodes} names a site twice, or one that was not asked"
    if not all(isinstance(text, bytes) and text for text in texts):
        return Reason.MALFORMED, f"{secrets} are not all bytes"
    return None


def _bound(node: int, content: RecordDict, expected: Expected) -> Complaint | None:
    metrics, status = (content.config_records.get(f"fitres.{n}") for n in ("metrics", "status"))
    if metrics is None or status is None or content.array_records.get("fitres.parameters"):
        return Reason.MALFORMED, "the reply brings other records than agreed, or an update unmasked"
    if status.get("code") != 0:
        return Reason.ERROR, f"status {status.get('code')!r}"
    asked = expected.asked[node]
    if set(metrics) != {"receipt"} or metrics["receipt"] != asked.receipt:
        stale = asked.is_stale(metrics.get("receipt"))
        return (Reason.STALE if stale else Reason.IDENTITY), "the receipt is not this round's"
    if weight(content) not in (0, 1):
        return Reason.BAD_COUNT, f"the weight is {weight(content)!r}, expected 0 or 1"
    return None


def _masked(answer: ConfigRecord, entries: int) -> Complaint | None:
    """Compare the arrays' bytes with those of an honest one: header and size, before any parser."""
    parts = answer.get(Key.MASKED_PARAMETERS)
    if not isinstance(parts, list) or len(parts) != 2:
        return Reason.MALFORMED, "the reply brings no weight and vector"
    for part, size in zip(parts, (1, entries), strict=True):
        honest = ndarray_to_bytes(np.zeros(size, np.int64))
        header = len(honest) - 8 * size
        if not isinstance(part, bytes) or len(part) != len(honest):
            return Reason.WRONG_SIZE, f"a masked array has not the {len(honest)} bytes it must have"
        if part[:header] != honest[:header]:
            return Reason.WRONG_SHAPE, f"a masked array is not int64[{size}]"
    return None
