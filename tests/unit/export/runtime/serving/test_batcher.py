from concurrent.futures import Future
from threading import Event
from typing import Any

import numpy as np
import pytest

from export.runtime.serving.batcher import Batcher


def images(*values: int) -> Any:
    return np.array(values, np.uint8).reshape(-1, 1, 1, 1)


class Gate:
    """Compute twice the pixel's value; the first batch waits to be let through."""

    def __init__(self) -> None:
        self.entered, self.open = Event(), Event()
        self.batches: list[list[int]] = []

    def __call__(self, batch: Any) -> Any:
        self.batches.append(batch.ravel().tolist())
        self.entered.set()
        assert self.open.wait(30)
        return batch.reshape(len(batch), 1) * np.float32(2)


def answer(future: "Future[Any]") -> list[float]:
    found: list[float] = future.result(30).ravel().tolist()
    return found


def test_what_waits_is_computed_together_and_handed_back_apart() -> None:
    gate = Gate()
    batcher = Batcher(gate, largest=4)
    first = batcher.submit(images(1))
    assert gate.entered.wait(30)
    others = [batcher.submit(images(*v)) for v in ([2, 3], [4], [5, 6], [7])]
    gate.open.set()
    assert answer(first) == [2]
    assert [answer(f) for f in others] == [[4, 6], [8], [10, 12], [14]]
    # four images at most, and no caller's own are parted
    assert gate.batches == [[1], [2, 3, 4], [5, 6, 7]]
    batcher.close()


def test_one_caller_may_bring_more_than_a_batch() -> None:
    gate = Gate()
    gate.open.set()
    batcher = Batcher(gate, largest=2)
    assert answer(batcher.submit(images(1, 2, 3))) == [2, 4, 6]
    assert gate.batches == [[1, 2, 3]]
    batcher.close()


def test_a_failure_reaches_its_callers_and_the_thread_goes_on() -> None:
    calls = []

    def compute(batch: Any) -> Any:
        calls.append(len(batch))
        if len(calls) == 1:
            raise ValueError("broken")
        return np.zeros((len(batch), 1), np.float32)

    batcher = Batcher(compute, largest=2)
    with pytest.raises(ValueError, match="broken"):
        batcher.submit(images(1)).result(30)
    assert answer(batcher.submit(images(1))) == [0]
    assert batcher.alive
    batcher.close()


def test_who_has_left_is_not_computed() -> None:
    gate = Gate()
    batcher = Batcher(gate, largest=8)
    first = batcher.submit(images(1))
    assert gate.entered.wait(30)
    gone, stays = batcher.submit(images(2)), batcher.submit(images(3))
    assert gone.cancel()
    gate.open.set()
    assert (answer(first), answer(stays)) == ([2], [6])
    assert gate.batches == [[1], [3]]
    batcher.close()


def test_closing_answers_what_waits_and_takes_no_more() -> None:
    gate = Gate()
    batcher = Batcher(gate, largest=1)
    waiting = [batcher.submit(images(v)) for v in (1, 2, 3)]
    gate.open.set()
    batcher.close()
    assert [answer(f) for f in waiting] == [[2], [4], [6]]
    assert not batcher.alive
    with pytest.raises(RuntimeError, match="shutting down"):
        batcher.submit(images(4)).result(30)
