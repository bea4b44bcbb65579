"""The Flower ServerApp: settings in, rounds run, artefact out. No maths here."""

from contextlib import suppress
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedprompt.config import Flat, section
from fedprompt.errors import FedpromptError, StorageError
from fedprompt.identity import canonical_json
from fedprompt.storage import write_atomic
from server import outcome, record
from server.checkpoint import load_latest
from server.config import ServerConfig
from server.rounds import CHECKPOINTS, RECORD, Rounds, check_vacant
from server.tuning import Tuning

app = ServerApp()
ARTEFACT, SETTINGS = "artefact", "settings.json"


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Tune a prompt over the sites of a grid and leave everything in ``server.output``."""
    settings: Flat = dict(context.run_config)
    server = section(settings, "server", ServerConfig)
    folder = Path(server.output)
    check_vacant(server)  # before anything of an earlier run is touched
    try:
        run(grid, settings, folder)
    except FedpromptError as error:
        with suppress(StorageError):  # a full disk must not hide what ended the run
            outcome.write_failure(folder, error)
        raise


def run(grid: Grid, settings: Flat, folder: Path) -> None:
    """Run every round, save the artefact and note that the run is done."""
    outcome.clear(folder)
    tuning = Tuning(settings)
    task = tuning.task()
    if tuning.server.resume:  # refuses other settings before these replace the run's own
        load_latest(folder / CHECKPOINTS, task.run)
    write_atomic(folder / SETTINGS, canonical_json(settings))
    state = Rounds(grid, task, tuning.server, tuning.sites).run()
    lines = record.read(folder / RECORD)
    lost = lines[-1].get("truncation_error", 0.0) if lines else 0.0
    artefact = tuning.artefact(state.arrays, state.round, lost)
    artefact.save(folder / ARTEFACT)
    outcome.write_success(folder, artefact.sha256)
