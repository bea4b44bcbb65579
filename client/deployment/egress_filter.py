"""Apply a site's policy to every message, and log every answer before it leaves.

A Flower mod around the ClientApp. In a simulation, whose contexts name no site's folder, messages
pass untouched. Answers of secure aggregation pass in their own shape only.
"""

import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.common.constant import ErrorCode
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage

from client.deployment.egress_log import EgressLog
from client.deployment.policy import METRICS as ALLOWABLE
from client.deployment.policy import Policy
from client.deployment.site_folder import SiteFolder
from fedprompt.errors import PolicyError
from fedprompt.identity import canonical_json, sha256_bytes
from fedprompt.wire import ARRAYS, CENTRES, CONFIG, DECLINED, IDENTITY, METRICS, SHARED

Ask = Callable[[Message, Context], Message]
_EXPECTED = {  # type of a message -> the records of its answer
    "query": {IDENTITY},
    CENTRES: {ARRAYS, METRICS},
    "train": {ARRAYS, METRICS},
    "evaluate": {METRICS},
}
_OURS = ErrorCode.CLIENT_APP_RAISED_EXCEPTION  # the code of errors that are in the log
_CARD = {*SHARED, "partition", "num-examples"}
_log = logging.getLogger("client.border")
_FIT = frozenset({"fitres.parameters", "fitres.num_examples", "fitres.metrics", "fitres.status"})
_STAGES = (  # what the answer to each stage holds
    {Key.PUBLIC_KEY_1, Key.PUBLIC_KEY_2},
    {Key.DESTINATION_LIST, Key.CIPHERTEXT_LIST},
    {Key.MASKED_PARAMETERS},
    {Key.NODE_ID_LIST, Key.SHARE_LIST},
)


def policy_mod(message: Message, context: Context, call_next: Ask) -> Message:
    """Answer a message under the site's policy; in a simulation just answer it.

    Raises
    ------
    StorageError
        The egress log cannot be written: then nothing leaves, not even this error.
    """
    folder = folder_of(context)
    return (
        EgressFilter(folder).answer(message, context, call_next)
        if folder
        else call_next(message, context)
    )


def folder_of(context: Context) -> SiteFolder | None:
    """Return the folder of a deployed site; None in a simulation."""
    path = context.node_config.get("site-folder")
    return SiteFolder(Path(str(path))) if path else None


class EgressFilter:
    """Enforce one site's policy, and log its answers.

    Parameters
    ----------
    folder
        The site's.
    """

    def __init__(self, folder: SiteFolder) -> None:
        self._folder = folder
        self._egress = EgressLog(folder.egress)

    def answer(self, message: Message, context: Context, ask: Ask) -> Message:
        """Return the answer that may leave: the app's without withheld numbers, or an error."""
        try:
            policy = Policy.read(self._folder.policy)
            server, kind = self._folder.node().server, _kind(message)
            policy.admit(server, kind, context.run_config, _config(message).get("sites"))
            if kind == "train":
                policy.allow_update(is_masked=is_masked(message.content))
            reply = ask(message, context)
            if reply.has_error():
                raise PolicyError("the app answered with an error of its own")
            release(reply, kind, policy, self._folder.class_list())
            _copy_date(message, reply)
            entry = self._describe(message, reply)
            policy.allow_bytes(entry["bytes"], self._egress.sent_today())
        except Exception as error:
            return self.refuse(message, error)
        self._egress.append(entry)
        return reply

    def refuse(self, message: Message, error: Exception) -> Message:
        """Return an error that names the rule, or only the type of the exception.

        Its text may hold names of files and patients: it stays in this site's log.

        Raises
        ------
        StorageError
            The egress log cannot be written.
        """
        kind = type(error).__name__
        if isinstance(error, PolicyError):
            reason = f"{DECLINED}: {error}"
            _log.warning("%s", reason, extra={"event": "refused", "kind": kind})
        else:
            reason = f"{kind}; see the site's own log"
            extra = {"event": "error", "kind": kind}
            _log.error("the site could not answer", exc_info=error, extra=extra)
        reply = Message(Error(_OURS, reason), reply_to=message)
        _copy_date(message, reply)
        self._egress.append(self._describe(message, reply) | {"error": reason})
        return reply

    def log_flower_error(self, reply: ProtoMessage) -> None:
        """Log an error that Flower's SuperNode sends in the ClientApp's place; others are logged.

        Raises
        ------
        StorageError
            The egress log cannot be written.
        """
        if not reply.HasField("error") or reply.error.code == _OURS:
            return
        self._egress.append(
            {
                "flower_run": str(reply.metadata.run_id),
                "kind": str(reply.metadata.message_type)[:40],
                "server": self._folder.node().server,
                "bytes": int(reply.ByteSize()),
                "error": reply.error.reason,
            }
        )

    def _describe(self, message: Message, reply: Message) -> dict[str, Any]:
        """Return the log entry of an answer."""
        content = RecordDict() if reply.has_error() else reply.content
        config = _config(message)
        return {
            "run": str(config.get("run", ""))[:80],
            "flower_run": str(message.metadata.run_id),
            "round": _small(config.get("round")),
            "kind": str(message.metadata.message_type)[:40],
            "server": self._folder.node().server,
            "bytes": int(message_to_proto(reply).ByteSize()),
            "arrays": [
                _describe_array(name, array)
                for record in content.array_records.values()
                for name, array in record.items()
            ],
            "metrics": {k: v for r in content.metric_records.values() for k, v in r.items()},
            "identity": {
                k: _loggable(v) for r in content.config_records.values() for k, v in r.items()
            },
        }


def release(reply: Message, kind: str, policy: Policy, classes: tuple[str, ...]) -> None:
    """Remove from an answer what may not leave, and refuse an answer with unknown content.

    Parameters
    ----------
    reply
        Changed in place.
    kind
        Type of the message that it answers.
    policy
        The site's.
    classes
        The agreed class list: names of folders must not leave in its place.

    Raises
    ------
    PolicyError
        It holds something that no answer of this type has.
    """
    content = reply.content
    if kind == "train":
        policy.allow_update(is_masked=is_masked(content))
        if is_masked(content):
            check_masked(content)
            return
    if set(content) != _EXPECTED[kind]:
        raise PolicyError("the answer has other records than an answer of its type")
    if kind == "query":
        _release_card(content.config_records[IDENTITY], policy, classes)
        return
    metrics = content.metric_records[METRICS]
    withheld = ALLOWABLE - policy.metrics
    if kind in ("train", CENTRES):
        metrics.pop("loss", None) if "loss" in withheld else None
        if "num-examples" in withheld and metrics["num-examples"]:
            metrics["num-examples"] = 1
    elif withheld:
        metrics["num-examples"], metrics["correct"], metrics["loss"] = 0, 0, 0.0
    _check_metrics(metrics)


def _copy_date(message: Message, reply: Message) -> None:
    """Date an answer as its question: its own date would reveal how long the site worked."""
    reply.metadata.created_at, reply.metadata.ttl = (
        message.metadata.created_at,
        message.metadata.ttl,
    )


def _release_card(card: ConfigRecord, policy: Policy, classes: tuple[str, ...]) -> None:
    if set(card) - {"domain"} != _CARD:
        raise PolicyError("the identity has unknown or missing fields")
    if card["classes"] != canonical_json(list(classes)).decode():
        raise PolicyError("the classes of this site's images are not the list that was agreed on")
    if "num-examples" not in policy.metrics and card["num-examples"]:
        card["num-examples"] = 1


def _check_metrics(metrics: MetricRecord) -> None:
    if set(metrics) - ALLOWABLE != {"receipt"}:
        raise PolicyError("the answer has other numbers than an answer of its type")
    for name, value in metrics.items():
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise PolicyError(f"{name} is no finite number")


def _describe_array(name: str, array: Array) -> dict[str, Any]:
    dtype = np.dtype(array.dtype).newbyteorder("<")
    values = np.frombuffer(array.data, dtype).astype(np.float64)
    if not np.isfinite(values).all():
        raise PolicyError(f"{name} holds NaN or infinity")
    return {
        "name": name,
        "shape": list(array.shape),
        "dtype": array.dtype,
        "bytes": len(array.data),
        "sha256": sha256_bytes(array.data),
        "norm": float(np.linalg.norm(values)),
    }


def _kind(message: Message) -> str:
    kind = str(message.metadata.message_type)
    if kind not in _EXPECTED:
        raise PolicyError(f"messages of kind {kind!r:.40} are not answered")
    return kind


def _config(message: Message) -> Mapping[str, Any]:
    return message.content.config_records.get(CONFIG, {}) if message.has_content() else {}


def _small(value: object) -> int | None:
    return value if isinstance(value, int) else None


def is_masked(content: RecordDict) -> bool:
    """Return whether an answer belongs to secure aggregation."""
    return RECORD_KEY_CONFIGS in content


def check_masked(content: RecordDict) -> None:
    """Refuse an answer of secure aggregation that holds more than a stage of it sends.

    Raises
    ------
    PolicyError
        It holds something else, such as an unmasked array.
    """
    config = content.config_records
    stage = set(config.get(RECORD_KEY_CONFIGS, ()))
    trains = stage == {Key.MASKED_PARAMETERS}
    if stage not in _STAGES or set(content) != {RECORD_KEY_CONFIGS} | (_FIT if trains else set()):
        raise PolicyError("the answer is of no stage of secure aggregation")
    if any(record for record in content.array_records.values()):
        raise PolicyError("the answer brings an array that is not masked")
    if not trains:
        return
    if set(config.get("fitres.metrics", ())) != {"receipt"} or _status(content) != (0, ""):
        raise PolicyError("the answer has other numbers than an answer of its type")
    numbers = content.metric_records.get("fitres.num_examples")
    if not numbers or dict(numbers) not in ({"num_examples": 0}, {"num_examples": 1}):
        raise PolicyError("the answer's weight is not 0 or 1")


def _loggable(value: object) -> object:
    """Return a value as the egress log can hold it: bytes as their hash."""
    if isinstance(value, bytes):
        return f"sha256:{sha256_bytes(value)}"
    return [_loggable(item) for item in value] if isinstance(value, list) else value


def _status(content: RecordDict) -> tuple[object, object]:
    record = content.config_records.get("fitres.status")
    return (record.get("code"), record.get("message")) if record else (None, None)
