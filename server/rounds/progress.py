"""Show a run's rounds: a live bar on a terminal, plain lines in a log."""

import logging
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from fedprompt.processes import logs
from fedprompt.round_record import RoundRecord


class Display(Protocol):
    """Show rounds as they are committed."""

    def __enter__(self) -> "Display": ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def show(self, record: RoundRecord) -> None:
        """Show one committed round."""

    def answered(self, count: int) -> None:
        """Show how many sites have answered in the current round."""

    def note(self, text: str) -> None:
        """Show something worth knowing between rounds."""


def display(rounds: int, console: Console) -> Display:
    """Return the display that suits where the output goes."""
    return LiveDisplay(rounds, console) if console.is_terminal else LineDisplay(rounds, console)


class LineDisplay:
    """Write one plain line a round."""

    def __init__(self, rounds: int, console: Console) -> None:
        self._rounds, self._console = rounds, console

    def __enter__(self) -> "LineDisplay":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave nothing to undo."""

    def show(self, record: RoundRecord) -> None:
        """Write the round's line."""
        self._console.out(record.summary(self._rounds), highlight=False)

    def answered(self, count: int) -> None:
        """Write nothing: a log tells rounds, not replies."""

    def note(self, text: str) -> None:
        """Write the text on a line of its own."""
        self._console.out(text, highlight=False)


class LiveDisplay:
    """Draw a bar with the round, sites, loss, accuracy and bytes up and down, 80 columns wide."""

    def __init__(self, rounds: int, console: Console) -> None:
        self._rounds = rounds
        self._up = self._down = 0
        self._progress = Progress(
            TextColumn("[bold]round {task.completed}/{task.total}"),
            BarColumn(bar_width=10),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=console,
        )
        self._bar = self._progress.add_task("waiting for sites", total=rounds)
        self._told = ""

    def __enter__(self) -> "LiveDisplay":
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the last state of the bar on the screen."""
        self._progress.stop()

    def show(self, record: RoundRecord) -> None:
        """Move the bar to a committed round."""
        self._up += record.bytes_up
        self._down += record.bytes_down
        self._told = _describe(record, self._up, self._down)
        self._progress.update(self._bar, completed=record.round, description=self._told)

    def answered(self, count: int) -> None:
        """Show how many sites have answered in the current round."""
        told = self._told.partition("  ")[2]
        self._progress.update(self._bar, description=f"{count} sites  {told}")

    def note(self, text: str) -> None:
        """Keep the text above the bar."""
        self._progress.console.out(text, highlight=False)


class LogFeed(logging.Handler):
    """Pass what the round loop logs on to a display."""

    def __init__(self, display: Display) -> None:
        super().__init__(logging.DEBUG)
        self._display = display

    def emit(self, record: logging.LogRecord) -> None:
        """Show a committed round, a count of replies, or a message as it is."""
        if committed := getattr(record, logs.ROUND, None):
            self._display.show(committed)
        elif (count := getattr(record, "answered", None)) is not None:
            self._display.answered(count)
        else:
            self._display.note(record.getMessage())


def _describe(record: RoundRecord, up: int, down: int) -> str:
    parts = [f"{len(record.accepted if record.asked else record.joined)} sites"]
    for name, figure in (("loss", record.loss), ("acc", record.accuracy)):
        if figure is not None:
            parts.append(f"{name} {figure:.3f}")
    return "  ".join([*parts, f"↑{_bytes(up)} ↓{_bytes(down)}"])


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
