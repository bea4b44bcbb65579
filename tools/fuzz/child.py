"""The process that feeds the inputs; it may die of one, its parent tells."""

import json
import logging
import mmap
import os
import sys
import tempfile
import warnings
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from tools.fuzz.mutate import inputs

LONGEST = 8192  # bytes of an input; more only makes inputs rarer
LAST = "last-input.bin"
INSTRUMENTED = ("fedprompt", "server", "client", "export", "tomllib", "tests.fuzz")
_COUNT = 8  # bytes, then the length, then the input


def main(name: str, wanted: int, engine: str, folder: Path, seed: int) -> None:
    """Feed ``wanted`` inputs to a target and print the report as one JSON line."""
    warnings.simplefilter("ignore")  # what a warning says is no finding, and a million flood
    logging.disable(logging.CRITICAL)
    with _instrumented(engine):
        from tests.fuzz.targets import TARGETS
        from tools.fuzz.meter import Meter
    target = TARGETS[name]
    seeds = target.seeds()
    longest = max(LONGEST, *map(len, seeds))
    meter = Meter(target.feed, target.cap, folder)
    board = Board(folder, longest)

    def step(data: bytes) -> None:
        board.show(meter.inputs, data)
        meter.run(data)
        if meter.inputs >= wanted:
            print(json.dumps(meter.report()), flush=True)
            os._exit(0)  # libFuzzer has no other way to stop

    if engine == "atheris":
        _atheris(step, seeds, longest, folder, seed)
    for data in inputs(seeds, longest, seed):
        step(data)


class Board:
    """Show the parent how many inputs were fed, and which one is being fed."""

    def __init__(self, folder: Path, longest: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / LAST).open("wb") as file:
            file.truncate(2 * _COUNT + longest)
        with (folder / LAST).open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)

    def show(self, count: int, data: bytes) -> None:
        """Write the count and the input; both survive the process."""
        head = count.to_bytes(_COUNT, "little") + len(data).to_bytes(_COUNT, "little")
        self._map[: 2 * _COUNT + len(data)] = head + data


def last_input(folder: Path) -> tuple[int, bytes]:
    """Return the count and the input that a child wrote last."""
    text = (folder / LAST).read_bytes() if (folder / LAST).is_file() else bytes(2 * _COUNT)
    length = int.from_bytes(text[_COUNT : 2 * _COUNT], "little")
    return int.from_bytes(text[:_COUNT], "little"), text[2 * _COUNT : 2 * _COUNT + length]


def _instrumented(engine: str) -> AbstractContextManager[Any]:
    if engine != "atheris":
        return nullcontext()
    import atheris

    found: AbstractContextManager[Any] = atheris.instrument_imports(include=list(INSTRUMENTED))
    return found


def _atheris(step: Any, seeds: list[bytes], longest: int, folder: Path, seed: int) -> None:
    import atheris

    with tempfile.TemporaryDirectory(prefix="corpus-") as corpus:
        for number, data in enumerate(seeds):
            Path(corpus, str(number)).write_bytes(data)
        options = [f"-max_len={longest}", f"-seed={seed + 1}", "-rss_limit_mb=8192", "-verbosity=0"]
        options += [f"-artifact_prefix={folder}/", "-handle_segv=0", "-timeout=600", corpus]
        atheris.Setup([sys.argv[0], *options], step)
        atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], Path(sys.argv[4]), int(sys.argv[5]))
