"""Tune a method as a protocol asks: on one machine's images, or over a federation."""

from collections.abc import Callable, Sequence
from typing import Any

from client.app import forget_sites
from client.evaluate import evaluate
from client.fit_run import fit_run
from client.protocols.protocol import Trial
from client.protocols.tuned import Tuned
from client.workbench import Workbench, open_workbench
from fedprompt.artefact import Artefact, load_artefact
from fedprompt.config import Flat, section
from fedprompt.data.config import DataConfig
from fedprompt.data.image_set import ImageSet
from fedprompt.data.load import share
from fedprompt.errors import DataError
from fedprompt.prompts.artefacts import to_artefact
from fedprompt.prompts.build import UNTRAINED, bank_of, build_prompt
from fedprompt.prompts.config import PromptConfig

Line = dict[str, Any]  # of a run's record


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


def federated(trial: Trial, part: str, changes: Flat) -> tuple[Tuned, list[Line]]:
    """Tune over simulated sites; return also the run's record, a line a round.

    A method that trains nothing has one line: how the sites score it on the images they hold out.
    """
    folder = trial.folder / part
    own: Flat = {"server.output": str(folder), "server.overwrite": True}
    settings = trial.settings | changes | own
    bench = open_workbench(settings)
    classes = bench.train.classes
    if settings["prompt.method"] in UNTRAINED:
        return Tuned(bench.clip, settings, classes, None), [_scored_at_sites(bench, settings)]
    try:
        lines = trial.federate(settings)
    finally:
        forget_sites()
    return Tuned(bench.clip, settings, classes, load_artefact(folder)), lines


def last_scored(lines: Sequence[Line]) -> Line:
    """Return the last line in which sites told how they score the prompt.

    It has ``accuracy``, ``worst_client_acc`` and ``sites``.

    Raises
    ------
    DataError
        No site holds out images.
    """
    scored = [line for line in lines if "accuracy" in line]
    if not scored:
        raise DataError(
            "no site told an accuracy; let sites hold out images (data.holdout) and have enough "
            "of them"
        )
    return scored[-1]


def local_accuracy(line: Line) -> float:
    """Return the mean of the sites' accuracies, each site counted once."""
    found = [float(site["accuracy"]) for site in line["sites"].values()]
    return sum(found) / len(found)


def _fitted(bench: Workbench, settings: Flat, train: ImageSet) -> Artefact | None:
    config, template = section(settings, "prompt", PromptConfig), bench.data.template
    rule = settings["server.rule"]
    prompt = build_prompt(
        config,
        bench.clip,
        train.classes,
        template,
        shared_basis=rule == "shared-basis",
        fresh_basis=rule == "fresh-basis",
    )
    if not prompt.arrays():
        return None
    images, labels = bench.encode(train, prompt.first_layer, bank_of(config.method))
    fit_run(prompt, images, labels, bench.fit, config)
    told = {"round": 0, "seed": config.seed, "aggregation": None}
    return to_artefact(bench.clip, prompt, train.classes, template, **told)


def _scored_at_sites(bench: Workbench, settings: Flat) -> Line:
    """Return what the sites of a federation would tell of a prompt that is never tuned."""
    config, data = section(settings, "prompt", PromptConfig), section(settings, "data", DataConfig)
    prompt = build_prompt(config, bench.clip, bench.train.classes, data.template)
    sites = {}
    for number in range(data.clients):
        held = share(data, number, data.clients).holdout
        if len(held):
            found = evaluate(prompt, *bench.encode(held, prompt.first_layer))
            told = {"accuracy": found.correct / found.count, "nll": found.loss}
            sites[str(number)] = told | {"examples": found.count}
    total = sum(site["examples"] for site in sites.values())
    if not sites:
        return {"sites": {}}
    return {
        "accuracy": sum(site["accuracy"] * site["examples"] for site in sites.values()) / total,
        "worst_client_acc": min(site["accuracy"] for site in sites.values()),
        "sites": sites,
    }
