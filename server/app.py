"""The Flower ServerApp: settings in, rounds run, artefact out. No maths here."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedprompt.errors import PrivacyError, StorageError
from fedprompt.processes import logs, parent_watchdog
from fedprompt.run_folder import RunFolder
from fedprompt.settings.run_config import RunConfig
from fedprompt.settings.server import ServerConfig
from server.rounds.loop import Rounds, check_vacant
from server.rounds.loop import log as rounds_log
from server.rounds.task_builder import Tuning
from server.run_folder import run_status
from server.run_folder.checkpoint import Checkpoint
from server.run_folder.resumption import last_committed
from server.run_folder.trackers import chosen, tracking

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Tune a prompt over the sites of a grid and leave everything in ``server.output``."""
    logs.tell_parent()
    parent_watchdog.watch_parent()
    settings = dict(context.run_config)
    folder = Path(str(settings.get("server.output", ServerConfig().output)))
    earlier = run_status.read(folder)  # of a run that is kept, if this one may not begin
    try:
        config = RunConfig.parse(settings)
        check_vacant(config.server)
        chosen(config.server.trackers)
        earlier = None
        run(grid, config, folder)
    except (KeyboardInterrupt, SystemExit):  # SIGTERM, under Flower's handlers or our own
        rounds_log.warning("stopped by a signal; committed rounds are kept, go on with resume")
        raise
    except Exception as error:
        if earlier is None:
            with suppress(StorageError):  # a full disk must not hide what ended the run
                run_status.write_failure(folder, error)
        raise


def run(grid: Grid, config: RunConfig, folder: Path) -> None:
    """Run every round, save the artefact and note that the run is done.

    Raises
    ------
    PrivacyError
        The budget is spent; the artefact of the last committed round is saved all the same.
    """
    run_status.clear(folder)
    place = RunFolder(folder)
    tuning = Tuning(config)
    task = tuning.task()
    # refuses other settings before these replace the run's own
    last = last_committed(place, config, task.run) if tuning.server.resume else None
    mechanism = tuning.mechanism(task)
    place.write_settings(config.flat())
    rounds = Rounds(grid, task, tuning.server, tuning.sites, mechanism)
    with tracking(tuning.server.trackers, folder, config.flat(), last):
        state, spent = until_spent(rounds.committed())
    last = place.last()
    lost = (last.truncation_error if last else None) or 0.0
    privacy = mechanism.statement() if mechanism else None
    artefact = tuning.artefact(state.arrays, state.round, lost, privacy)
    artefact.save(place.artefact)
    if spent:
        raise spent
    run_status.write_success(folder, artefact.sha256)


def until_spent(rounds: Iterator[Checkpoint]) -> tuple[Checkpoint, PrivacyError | None]:
    """Return the last committed state, and the error if a spent budget ended the run."""
    state = next(rounds)
    try:
        for committed in rounds:
            state = committed
    except PrivacyError as error:
        return state, error
    return state, None
