"""Wait for what other processes and threads do, without a timed assertion."""

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")
_WAIT = 180.0  # seconds, until a test gives up


def until(look: Callable[[], Found]) -> Found:
    """Return what ``look`` gives as soon as it is true."""
    end = time.monotonic() + _WAIT
    while not (found := look()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)
    return found
