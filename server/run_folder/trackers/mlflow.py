"""MLflow: one run on the server of ``MLFLOW_TRACKING_URI``, or in ``mlflow.db`` of the folder."""

import os
import time
from pathlib import Path

# before mlflow is imported: it would report its use to its makers, and wait minutes for a server
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")  # seconds
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")  # how it makes its tables is no news

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run

from fedprompt.round_record import RoundRecord
from fedprompt.run_folder import RunFolder
from fedprompt.settings.section import Flat
from server.run_folder.trackers.tracker import figures

EXPERIMENT = "fedprompt"  # unless MLFLOW_EXPERIMENT_NAME says otherwise
_FOLDER, _RUN = "fedprompt.output", "fedprompt.run"  # tags that a resumed run is found by


class Mlflow:
    """Write a run's rounds as metrics, and its settings as parameters.

    Parameters
    ----------
    folder
        ``server.output`` of the run; its name becomes the run's.
    settings
        What the run was asked for.
    last
        The last committed round of a run that is resumed: the same MLflow run goes on.
    """

    def __init__(self, folder: Path, settings: Flat, last: RoundRecord | None) -> None:
        own = f"sqlite:///{RunFolder(folder.resolve()).mlflow}"
        uri = os.environ.get("MLFLOW_TRACKING_URI") or own
        folder.mkdir(parents=True, exist_ok=True)
        self._client = MlflowClient(tracking_uri=uri)
        tags = {_FOLDER: str(folder.resolve())}
        experiment = self._experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT)
        run = self._find(experiment, tags | {_RUN: last.run}) if last else None
        if run:
            self._run, self._done = run.info.run_id, int(run.data.metrics.get("round", -1))
            self._client.update_run(self._run, status="RUNNING")
        else:
            made = self._client.create_run(experiment, tags=tags, run_name=folder.name)
            self._run, self._done = made.info.run_id, -1
            params = [Param(key, str(value)) for key, value in sorted(settings.items())]
            self._client.log_batch(self._run, params=params)

    def log(self, record: RoundRecord) -> None:
        """Write one round, unless the run has it."""
        step = record.round
        if step <= self._done:
            return
        now = int(1000 * time.time())
        told = {**figures(record), "round": float(step)}
        metrics = [Metric(name, value, now, step) for name, value in told.items()]
        self._client.log_batch(self._run, metrics=metrics)
        self._client.set_tag(self._run, _RUN, record.run)
        self._done = step

    def close(self, *, done: bool) -> None:
        """End the run, as finished or to be gone on with."""
        self._client.set_terminated(self._run, "FINISHED" if done else "KILLED")

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        return found.experiment_id if found else self._client.create_experiment(name)

    def _find(self, experiment: str, tags: dict[str, str]) -> Run | None:
        query = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
        found = self._client.search_runs([experiment], query, max_results=1)
        return found[0] if found else None
