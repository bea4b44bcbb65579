"""Let the answers of secure aggregation pass the border, and nothing else in their shape."""

from flwr.app import RecordDict
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key

from fedprompt.errors import PolicyError
from fedprompt.identity import sha256_bytes

_FIT = frozenset({"fitres.parameters", "fitres.num_examples", "fitres.metrics", "fitres.status"})
_STAGES = (  # what the answer to each stage holds
    {Key.PUBLIC_KEY_1, Key.PUBLIC_KEY_2},
    {Key.DESTINATION_LIST, Key.CIPHERTEXT_LIST},
    {Key.MASKED_PARAMETERS},
    {Key.NODE_ID_LIST, Key.SHARE_LIST},
)


def is_masked(content: RecordDict) -> bool:
    """Tell whether an answer belongs to secure aggregation."""
    return RECORD_KEY_CONFIGS in content


def check(content: RecordDict) -> None:
    """Make sure that such an answer holds no more than a stage of the protocol sends.

    Raises
    ------
    PolicyError
        There is something else in it, an unmasked array for one.
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
        raise PolicyError("the answer has other numbers than an answer of its kind")
    numbers = content.metric_records.get("fitres.num_examples")
    if not numbers or dict(numbers) not in ({"num_examples": 0}, {"num_examples": 1}):
        raise PolicyError("the answer's weight is not 0 or 1")


def told(value: object) -> object:
    """Return a value as the log of what leaves can hold it: bytes by their hash."""
    if isinstance(value, bytes):
        return f"sha256:{sha256_bytes(value)}"
    return [told(item) for item in value] if isinstance(value, list) else value


def _status(content: RecordDict) -> tuple[object, object]:
    record = content.config_records.get("fitres.status")
    return (record.get("code"), record.get("message")) if record else (None, None)
