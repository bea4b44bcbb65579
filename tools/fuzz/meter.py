"""Feed inputs to one target and count what must not happen.

How it is measured:

* A **crash** is any exception but the error tree's, or a process that dies.
* A **hang** is an input that takes over 1 s of this process's CPU time, twice in a row. CPU time,
  because the machine is shared; an input that sleeps or never returns is caught by the parent
  (`tools.fuzz.__main__`), which sees no progress for a minute.
* An **allocation** is the peak of what one input takes at a time, all its objects together, so
  never less than its largest one. Python's and numpy's memory is traced (tracemalloc) for one
  input in ``SAMPLE``; libraries in C do not report to it, so the growth of the resident memory
  during the same input is read from the kernel too (``VmHWM`` after a reset). An input over the
  limit is run again before it counts: the first one of its kind also pays for caches. Over all
  inputs the process's own largest resident size is kept.
"""

import gc
import resource
import time
import traceback
import tracemalloc
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedprompt.errors import FedpromptError

SAMPLE = 64
HANG = 1.0  # seconds of CPU
LIMIT = 4  # times the target's cap
_KEPT = 3  # inputs of each kind of finding that are written down
_RESIDENT_NOISE = 1 << 20  # bytes: the heap grows in such steps whatever an input does


@dataclass
class Meter:
    """Count inputs and findings of one target; findings are written below ``folder``."""

    feed: Callable[[bytes], None]
    cap: int
    folder: Path
    inputs: int = 0
    refused: int = 0
    slowest: float = 0.0
    largest: int = 0
    largest_resident: int = 0
    found: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._began = time.monotonic()
        self._first_resident = 0

    def run(self, data: bytes) -> None:
        """Feed one input; nothing leaves but what ends the process."""
        self.inputs += 1
        if self.inputs % SAMPLE == 0:
            self._measured(data)
        else:
            spent = self._once(data)
            if spent > HANG and self._once(data) > HANG:
                self._keep("hang", data, "")
        if self.inputs == 2000:
            self._first_resident = _most_resident()

    def report(self) -> dict[str, Any]:
        """Return the counts, as they are printed."""
        kinds = {k: n for k, n in self.found.items() if k not in ("hang", "allocation")}
        grown = _most_resident() - self._first_resident if self._first_resident else 0
        return {
            "inputs": self.inputs,
            "refused": self.refused,
            "seconds": round(time.monotonic() - self._began, 1),
            "crashes": sum(kinds.values()),
            "kinds": kinds,
            "hangs": self.found["hang"],
            "slowest": round(self.slowest, 3),
            "over_limit": self.found["allocation"],
            "largest_allocation": self.largest,
            "largest_resident_growth": self.largest_resident,
            "limit": LIMIT * self.cap,
            "process_growth": grown,
        }

    def _once(self, data: bytes) -> float:
        began = time.process_time()
        try:
            self.feed(data)
        except FedpromptError:
            self.refused += 1
        except Exception as error:
            self._keep(_kind(error), data, traceback.format_exc())
        spent = time.process_time() - began
        self.slowest = max(self.slowest, spent)
        return spent

    def _measured(self, data: bytes) -> None:
        taken, resident = self._taken(data)
        if self._over(taken, resident):
            taken, resident = map(min, (taken, resident), self._taken(data))
        if self._over(taken, resident):
            self._keep("allocation", data, f"{taken} traced, {resident} resident\n")
        self.largest = max(self.largest, taken)
        self.largest_resident = max(self.largest_resident, resident)

    def _over(self, taken: int, resident: int) -> bool:
        limit = LIMIT * self.cap
        return taken > limit or resident > limit + _RESIDENT_NOISE

    def _taken(self, data: bytes) -> tuple[int, int]:
        """Return the peak of traced bytes and the growth of the resident ones."""
        gc.collect(0)
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
        before = _status("VmRSS")
        tracemalloc.start()
        try:
            self._once(data)
            traced = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        return traced, max(0, _status("VmHWM") - before)

    def _keep(self, kind: str, data: bytes, text: str) -> None:
        self.found[kind] += 1
        if self.found[kind] <= _KEPT:
            self.folder.mkdir(parents=True, exist_ok=True)
            name = f"{kind.replace('/', '-').replace(':', '-')}-{self.found[kind]}"
            (self.folder / f"{name}.bin").write_bytes(data)
            (self.folder / f"{name}.txt").write_text(text)


def _kind(error: Exception) -> str:
    """Return what tells one crash from another: its type and where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if "site-packages" not in f.filename and "/lib/" not in f.filename]
    frame = (ours or frames)[-1]
    return f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}"


def _status(key: str) -> int:
    """Return a line of the kernel's report in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    return 0


def _most_resident() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
