"""Write what a child process says into this process's log, which one process alone may write."""

import json
import logging
import math
from datetime import datetime
from typing import Any

_OWN = {"time", "level", "logger", "message", "error"}
_TAKEN = vars(logging.makeLogRecord({})).keys() | {"message", "asctime", "taskName"}
_LONGEST = 20_000  # characters of one line that are kept


def relay(line: bytes, child: str) -> None:
    """Log one line of a child: a JSON line as it was meant, any other as a warning."""
    text = line.decode("utf-8", "replace").strip()[:_LONGEST]
    if not text:
        return
    told = _told(text)
    if told is None:
        logging.getLogger(f"client.{child}").warning("%s", text, extra={"child": child})
        return
    if not str(told["message"]).strip():
        return  # Flower leaves blank lines between its messages
    record = logging.makeLogRecord(
        {
            "name": str(told.get("logger", child)),
            "levelname": str(told.get("level", "info")).upper(),
            "levelno": _level(told.get("level")),
            "msg": "%s",
            "args": (_with_error(told),),
            "child": child,
            **{k: v for k, v in told.items() if k not in _OWN and k not in _TAKEN},
        }
    )
    if created := _created(told.get("time")):
        record.created = created
    logging.getLogger("client.relayed").handle(record)


def _told(text: str) -> dict[str, Any] | None:
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return told if isinstance(told, dict) and "message" in told else None


def _with_error(told: dict[str, Any]) -> str:
    error = told.get("error")
    return f"{told['message']}\n{error}" if error else str(told["message"])


def _level(name: object) -> int:
    return logging.getLevelNamesMapping().get(str(name).upper(), logging.INFO)


def _created(moment: object) -> float:
    try:
        created = datetime.fromisoformat(str(moment)).timestamp()
    except (ValueError, OverflowError, OSError):
        return 0.0
    return created if math.isfinite(created) else 0.0
