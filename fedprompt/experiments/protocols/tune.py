"""Tune a method as a protocol asks: on one machine's images, or over a federation."""

import statistics
from collections.abc import Callable, Sequence

from client.app import forget_sites
from client.tuning.evaluate import evaluate
from fedprompt.artefact import load_artefact
from fedprompt.data.image_set import ImageSet
from fedprompt.data.load import share
from fedprompt.errors import DataError
from fedprompt.experiments.centralised_training import artefact_of, tune
from fedprompt.experiments.protocols.protocol import Trial
from fedprompt.experiments.protocols.tuned import Tuned
from fedprompt.experiments.setup import Experiment, open_experiment
from fedprompt.prompts.build import build_prompt
from fedprompt.prompts.methods import UNTRAINED
from fedprompt.round_record import RoundRecord, SiteScore
from fedprompt.settings.run_config import RunConfig
from fedprompt.settings.section import Flat


def centrally(
    trial: Trial, part: str, changes: Flat, choose: Callable[[ImageSet], ImageSet] | None = None
) -> Tuned:
    """Tune on one machine's images.

    Parameters
    ----------
    trial
        Names the method, the seed and the images.
    part
        Of the trial; its artefact is kept under this name.
    changes
        Settings of this part.
    choose
        Takes some of the training images; None = all.
    """
    config = trial.config.override(changes)
    experiment = open_experiment(config)
    classes = experiment.train.classes
    if config.prompt.method in UNTRAINED:
        return Tuned(experiment.clip, config, classes, None)
    images = choose(experiment.train) if choose else experiment.train
    prompt, _ = tune(experiment, config, images)
    artefact = artefact_of(experiment, prompt, config.prompt.seed)
    artefact.save(trial.folder / part)
    return Tuned(experiment.clip, config, classes, artefact)


def federated(trial: Trial, part: str, changes: Flat) -> tuple[Tuned, list[RoundRecord]]:
    """Tune over simulated sites; return also the record of the run's rounds.

    A method that trains nothing has one round: how the sites score it on the images they hold out.
    """
    folder = trial.folder / part
    own: Flat = {"server.output": str(folder), "server.overwrite": True}
    config = trial.config.override(changes | own)
    bench = open_experiment(config)
    classes = bench.train.classes
    if config.prompt.method in UNTRAINED:
        return Tuned(bench.clip, config, classes, None), [_scored_at_sites(bench, config)]
    try:
        records = trial.federate(config)
    finally:
        forget_sites()
    return Tuned(bench.clip, config, classes, load_artefact(folder)), records


def last_scored(records: Sequence[RoundRecord]) -> RoundRecord:
    """Return the last round in which sites told how they score the prompt.

    Raises
    ------
    DataError
        No site holds out images.
    """
    scored = [record for record in records if record.accuracy is not None]
    if not scored:
        raise DataError(
            "no site told an accuracy; let sites hold out images (data.holdout) and have enough "
            "of them"
        )
    return scored[-1]


def local_accuracy(record: RoundRecord) -> float:
    """Return the mean of the sites' accuracies, each site counted once."""
    return statistics.fmean(score.accuracy for score in record.sites.values())


def _scored_at_sites(bench: Experiment, config: RunConfig) -> RoundRecord:
    """Return what the sites of a federation would tell of a prompt that is never tuned."""
    data = config.data
    prompt = build_prompt(config.prompt, bench.clip, bench.train.classes, data.template)
    sites = {}
    for number in range(data.clients):
        held = share(data, number, data.clients).holdout
        if len(held):
            found = evaluate(prompt, *bench.encode(held, prompt.first_layer))
            sites[number] = SiteScore(
                accuracy=found.correct / found.count, nll=found.loss, examples=found.count
            )
    if not sites:
        return RoundRecord(round=0)
    scores = sites.values()
    total = sum(score.examples for score in scores)
    return RoundRecord(
        round=0,
        accuracy=sum(score.accuracy * score.examples for score in scores) / total,
        worst_client_acc=min(score.accuracy for score in scores),
        sites=sites,
    )
