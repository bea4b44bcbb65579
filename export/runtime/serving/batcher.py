"""Compute what waits, together: one thread runs the graph, requests only wait for it.

A batch is what has come while the last one was computed; nobody waits for others to come. One
thread suits every provider: CUDA's graphs and DirectML forbid more.
"""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from threading import Condition, Thread

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Logits = npt.NDArray[np.float32]
Waiting = tuple[Pixels, "Future[Logits]"]


class Batcher:
    """Gather images of several callers into batches.

    Parameters
    ----------
    compute
        Logits [batch classes] of images uint8 [batch size size 3].
    largest
        Images of a batch; a caller's own are never parted.
    """

    def __init__(self, compute: Callable[[Pixels], Logits], largest: int) -> None:
        self._compute, self._largest = compute, largest
        self._waiting: deque[Waiting] = deque()
        self._changed = Condition()
        self._closed = False
        self._thread = Thread(target=self._work, name="batcher", daemon=True)
        self._thread.start()

    def submit(self, images: Pixels) -> "Future[Logits]":
        """Return the logits to come; the future holds the error if the graph fails."""
        answer: Future[Logits] = Future()
        with self._changed:
            if self._closed:
                answer.set_exception(RuntimeError("the service is shutting down"))
                return answer
            self._waiting.append((images, answer))
            self._changed.notify()
        return answer

    def close(self) -> None:
        """Compute what waits, then end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    @property
    def alive(self) -> bool:
        """Whether anything that is submitted will be answered."""
        return self._thread.is_alive() and not self._closed

    def _work(self) -> None:
        while (batch := self._next()) is not None:
            answers = [answer for _, answer in batch]
            try:
                logits = self._compute(np.concatenate([images for images, _ in batch]))
            except Exception as error:  # each caller hears of it, the thread goes on
                for answer in answers:
                    answer.set_exception(error)
                continue
            ends = np.cumsum([len(images) for images, _ in batch])
            for answer, part in zip(answers, np.split(logits, ends[:-1]), strict=True):
                answer.set_result(part)

    def _next(self) -> list[Waiting] | None:
        """Wait for work; None when closed and all is done."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return None
                batch = self._take()
            if batch:
                return batch

    def _take(self) -> list[Waiting]:
        """Take what fits into a batch, but at least one caller's."""
        batch: list[Waiting] = []
        count = 0
        while self._waiting:
            images, answer = self._waiting[0]
            if batch and count + len(images) > self._largest:
                break
            self._waiting.popleft()
            if answer.set_running_or_notify_cancel():  # else its caller has left
                batch.append((images, answer))
                count += len(images)
        return batch
