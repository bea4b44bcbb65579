"""Tune a method as a protocol asks: on one machine's images, or over a federation."""

import statistics
from collections.abc import Callable, Sequence

from client.app import forget_sites
from client.tuning.evaluate import evaluate
from fedprompt.artefact import Artefact, load_artefact
from fedprompt.data.image_set import ImageSet
from fedprompt.data.load import share
from fedprompt.errors import DataError
from fedprompt.experiments.centralised_training import fit_run
from fedprompt.experiments.protocols.protocol import Trial
from fedprompt.experiments.protocols.tuned import Tuned
from fedprompt.experiments.setup import Workbench, open_workbench
from fedprompt.prompts.artefacts import to_artefact
from fedprompt.prompts.build import UNTRAINED, bank_of, build_prompt, rule_of
from fedprompt.round_record import RoundRecord, SiteScore
from fedprompt.settings.data import DataConfig
from fedprompt.settings.prompt import PromptConfig
from fedprompt.settings.run_config import section
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
    settings = trial.settings | changes
    bench = open_workbench(settings)
    artefact = _fitted(bench, settings, choose(bench.train) if choose else bench.train)
    if artefact:
        artefact.save(trial.folder / part)
    return Tuned(bench.clip, settings, bench.train.classes, artefact)


def federated(trial: Trial, part: str, changes: Flat) -> tuple[Tuned, list[RoundRecord]]:
    """Tune over simulated sites; return also the record of the run's rounds.

    A method that trains nothing has one round: how the sites score it on the images they hold out.
    """
    folder = trial.folder / part
    own: Flat = {"server.output": str(folder), "server.overwrite": True}
    settings = trial.settings | changes | own
    bench = open_workbench(settings)
    classes = bench.train.classes
    if settings["prompt.method"] in UNTRAINED:
        return Tuned(bench.clip, settings, classes, None), [_scored_at_sites(bench, settings)]
    try:
        records = trial.federate(settings)
    finally:
        forget_sites()
    return Tuned(bench.clip, settings, classes, load_artefact(folder)), records


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


def _fitted(bench: Workbench, settings: Flat, train: ImageSet) -> Artefact | None:
    config, template = section(settings, "prompt", PromptConfig), bench.data.template
    prompt = build_prompt(config, bench.clip, train.classes, template, rule=rule_of(settings))
    if not prompt.arrays():
        return None
    images, labels = bench.encode(train, prompt.first_layer, bank_of(config.method))
    fit_run(prompt, images, labels, bench.fit, config)
    told = {"round": 0, "seed": config.seed, "aggregation": None}
    return to_artefact(bench.clip, prompt, train.classes, template, **told)


def _scored_at_sites(bench: Workbench, settings: Flat) -> RoundRecord:
    """Return what the sites of a federation would tell of a prompt that is never tuned."""
    config, data = section(settings, "prompt", PromptConfig), section(settings, "data", DataConfig)
    prompt = build_prompt(config, bench.clip, bench.train.classes, data.template)
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
