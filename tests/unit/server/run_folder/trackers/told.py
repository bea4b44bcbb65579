"""Commit made-up rounds, and read what TensorBoard and MLflow then show."""

from mlflow import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fedprompt.processes import logs
from fedprompt.round_record import RoundRecord, SiteScore
from server.rounds.loop import log

SETTINGS = {"server.rounds": 3, "prompt.rank": 1}


def line(server_round, **more):
    return RoundRecord(
        round=server_round, run="abc", accuracy=0.5 + server_round / 10, loss=None,
        asked=(0, 1, 2), accepted=(0, 2), sites={0: SiteScore(accuracy=1.0, examples=3)},
    ) | RoundRecord(round=server_round, **more)  # fmt: skip


def commit(server_round, **more):
    """Say that a round was committed, as the round loop does."""
    log.info("round %d", server_round, extra={logs.ROUND: line(server_round, **more)})


def scalars(folder):
    """Return what TensorBoard shows: {name: [(round, value)]}."""
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    return {
        name: [(event.step, round(event.value, 6)) for event in events.Scalars(name)]
        for name in events.Tags()["scalars"]
    }


def runs(folder):
    """Return the MLflow runs of a folder, with every metric's history."""
    client = MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("fedprompt")
    found = client.search_runs([experiment.experiment_id])
    return [(run, _metrics(client, run)) for run in found]


def _metrics(client, run):
    histories = {n: client.get_metric_history(run.info.run_id, n) for n in run.data.metrics}
    return {n: [(m.step, round(m.value, 6)) for m in found] for n, found in histories.items()}
