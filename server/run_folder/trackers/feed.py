"""Open the trackers of a run and pass every committed round on to them."""

import importlib
import logging
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fedprompt.errors import ConfigError
from fedprompt.processes import logs
from fedprompt.round_record import RoundRecord
from fedprompt.settings.section import Flat
from server.rounds.loop import log as rounds_log
from server.run_folder.trackers.tracker import Tracker

# name -> its class; strings, because each is imported only where it is asked for
TRACKERS = {
    "tensorboard": "server.run_folder.trackers.tensorboard:TensorBoard",
    "mlflow": "server.run_folder.trackers.mlflow:Mlflow",
}
_log = logging.getLogger(__name__)


def chosen(names: str) -> list[str]:
    """Return the trackers of a comma-separated list.

    Raises
    ------
    ConfigError
        A name is unknown.
    """
    found = [name.strip() for name in names.split(",") if name.strip()]
    for name in found:
        if name not in TRACKERS:
            raise ConfigError(
                f"server.trackers names {name!r}; allowed are {', '.join(TRACKERS)}, or several "
                "with commas between"
            )
    return found


@contextmanager
def tracking(names: str, folder: Path, settings: Flat, last: RoundRecord | None) -> Iterator[None]:
    """Send the rounds that are committed meanwhile to trackers.

    Parameters
    ----------
    names
        ``server.trackers``.
    folder
        ``server.output``.
    settings
        The run's settings, flat.
    last
        The last committed round if the run is resumed.

    Raises
    ------
    ConfigError
        A tracker is unknown, not installed, or cannot be reached at the start.
    """
    feeds = [Feed(name, _open(name, folder, settings, last)) for name in chosen(names)]
    handler = _Handler(feeds)
    level = rounds_log.level
    if feeds:
        rounds_log.addHandler(handler)
        rounds_log.setLevel(min(logging.INFO, rounds_log.getEffectiveLevel()))
    done = False
    try:
        if last:
            handler.pass_on(last)  # the run may have been killed before it was told
        yield
        done = True
    finally:
        rounds_log.removeHandler(handler)
        rounds_log.setLevel(level)
        for feed in feeds:
            feed.close(done=done)


class Feed:
    """Bring rounds to one tracker, in order; what it cannot take now waits for the next round.

    A tracker that fails is told in the log and never ends the run.
    """

    def __init__(self, name: str, tracker: Tracker) -> None:
        self._name, self._tracker = name, tracker
        self._waiting: deque[RoundRecord] = deque()

    def put(self, record: RoundRecord) -> None:
        """Pass a round on, after those that wait."""
        self._waiting.append(record)
        try:
            while self._waiting:
                self._tracker.log(self._waiting[0])
                self._waiting.popleft()
        except Exception as error:  # whatever a tracker's library raises
            _log.warning(
                "%s took no figures (%s); %d rounds wait, the run goes on",
                self._name, _brief(error), len(self._waiting),
            )  # fmt: skip

    def close(self, *, done: bool) -> None:
        """Close the tracker."""
        try:
            self._tracker.close(done=done)
        except Exception as error:
            _log.warning("%s was not closed: %s", self._name, _brief(error))


class _Handler(logging.Handler):
    """Catch the committed rounds among what the round loop logs."""

    def __init__(self, feeds: Sequence[Feed]) -> None:
        super().__init__(logging.INFO)
        self._feeds = feeds

    def emit(self, record: logging.LogRecord) -> None:
        """Pass a committed round on."""
        if committed := getattr(record, logs.ROUND, None):
            self.pass_on(committed)

    def pass_on(self, record: RoundRecord) -> None:
        """Bring a round to every tracker."""
        for feed in self._feeds:
            feed.put(record)


def _open(name: str, folder: Path, settings: Flat, last: RoundRecord | None) -> Tracker:
    module, _, kind = TRACKERS[name].partition(":")
    try:
        tracker: Tracker = getattr(importlib.import_module(module), kind)(folder, settings, last)
    except ImportError as error:
        raise ConfigError(
            f"server.trackers names {name}, which is not installed ({error}); "
            "pip install 'fedprompt[trackers]', or leave it out"
        ) from error
    except Exception as error:  # whatever its library raises
        raise ConfigError(
            f"server.trackers: {name} cannot be opened: {_brief(error)}; "
            "see that it can be reached, or leave it out"
        ) from error
    return tracker


def _brief(error: Exception) -> str:
    """Return an error in one line; what stands behind a tracker's store fills pages."""
    lines = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"
