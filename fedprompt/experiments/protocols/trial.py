"""One trial of a protocol: a method is tuned at one seed, centrally or federated, and measured."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from client.app import forget_sites
from client.tuning.evaluate import evaluate, predict
from fedprompt.artefact import Artefact, load_artefact
from fedprompt.backbone.clip import FrozenClip
from fedprompt.data.image_set import ImageSet
from fedprompt.data.load import share
from fedprompt.errors import DataError, PromptError
from fedprompt.experiments.centralised_training import artefact_of, tune
from fedprompt.experiments.evaluation import metrics
from fedprompt.experiments.reply_size import reply_bytes
from fedprompt.experiments.setup import Experiment, open_experiment
from fedprompt.experiments.simulation import federate
from fedprompt.prompt_state import PromptState
from fedprompt.prompts.artefacts import from_artefact
from fedprompt.prompts.build import Prompt, build_prompt, is_tied, recipe_of
from fedprompt.prompts.methods import UNTRAINED
from fedprompt.round_record import RoundRecord, SiteScore
from fedprompt.settings.run_config import RunConfig
from fedprompt.settings.section import Flat

# by the field's names: shares from 0 to 1, nll in nats; None where a method has no such figure
Metrics = dict[str, float | None]


@dataclass(frozen=True, kw_only=True)
class Size:
    """Count the numbers a site trains, those it sends in a round, and the bytes of its reply."""

    parameters: int
    sent: int
    bytes_up: int


@dataclass(frozen=True)
class TrainedMethod:
    """A method as tuning left it; it may meet other classes and images than those it was tuned on.

    Attributes
    ----------
    clip
        The frozen CLIP.
    config
        Of the run it was tuned in.
    classes
        It was tuned for.
    artefact
        None for a method that trains nothing.
    """

    clip: FrozenClip
    config: RunConfig
    classes: tuple[str, ...]
    artefact: Artefact | None

    def for_classes(self, classes: Sequence[str]) -> Prompt | None:
        """Return the prompt for a list of classes, with the trained parameters.

        None where these belong to other classes, as a linear probe's rows and class-specific
        vectors do.
        """
        if self.artefact is None:
            template = self.config.data.template
            return build_prompt(self.config.prompt, self.clip, classes, template)
        if tuple(classes) != self.classes and is_tied(self.config.prompt):
            return None
        metadata = {**self.artefact.metadata, "classes": list(classes)}
        return from_artefact(replace(self.artefact, metadata=metadata), self.clip)

    def as_trained(self) -> Prompt:
        """Return the prompt for the classes it was tuned for."""
        prompt = self.for_classes(self.classes)
        if prompt is None:
            raise PromptError("the method cannot classify the classes that it was tuned for")
        return prompt

    def scores(self, changes: Flat, chosen: ImageSet | None = None) -> Metrics:
        """Return the metrics on test images; none for classes that the method cannot classify.

        Parameters
        ----------
        changes
            Settings that name other images than those of the run.
        chosen
            Images to score; None = all test images that the settings name.
        """
        experiment = open_experiment(self.config.override(changes))
        images = experiment.test if chosen is None else chosen
        prompt = self.for_classes(images.classes)
        if prompt is None:
            return {}
        encoded, labels = experiment.encode(images, prompt.first_layer)
        return {**metrics(predict(prompt, encoded), labels)}

    def accuracy(self, changes: Flat, chosen: ImageSet | None = None) -> float | None:
        """Return the accuracy as in `scores`; None for classes that it cannot classify."""
        return self.scores(changes, chosen).get("accuracy")

    @cached_property
    def size(self) -> Size:
        """The numbers a site trains and sends; a local prompt is trained and not sent."""
        if self.artefact is None:
            return Size(parameters=0, sent=0, bytes_up=0)
        leaving, personal = self._in_training().leaving(), self.config.prompt.personal
        sent = PromptState() if personal == "local" else leaving
        trained = sum(array.size for array in leaving.values())
        return Size(
            parameters=2 * trained if personal == "both" else trained,
            sent=sum(array.size for array in sent.values()),
            bytes_up=reply_bytes(sent, self.config.server.dtype),
        )

    @property
    def form(self) -> str:
        """The form in which its matrices are trained."""
        prompt = self.config.prompt
        return prompt.form or recipe_of(prompt.method).form if self.artefact else ""

    def _in_training(self) -> Prompt:
        """Return the prompt as sites train it; an artefact keeps no trace of a fresh basis."""
        rule = self.config.server.rule
        if rule != "fresh-basis" or self.artefact is None:
            return self.as_trained()
        metadata = {**self.artefact.metadata, "form": self.form, "rank": self.config.prompt.rank}
        return from_artefact(replace(self.artefact, metadata=metadata), self.clip, rule=rule)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One method at one seed.

    Attributes
    ----------
    config
        Every setting of the run.
    folder
        Of this trial's artefacts and federations.
    targets
        Settings of further data sets, by name.
    """

    config: RunConfig
    folder: Path
    targets: Mapping[str, Flat] = field(default_factory=dict)

    def train_centrally(
        self, part: str, changes: Flat, choose: Callable[[ImageSet], ImageSet] | None = None
    ) -> TrainedMethod:
        """Tune on one machine's images.

        Parameters
        ----------
        part
            Name of the folder that keeps the artefact.
        changes
            Settings of this part.
        choose
            Returns some of the training images; None = all.
        """
        config = self.config.override(changes)
        experiment = open_experiment(config)
        images = choose(experiment.train) if choose else experiment.train
        method = TrainedMethod(experiment.clip, config, images.classes, None)
        if config.prompt.method in UNTRAINED:
            return method
        prompt, _ = tune(experiment, config, images)
        artefact = artefact_of(experiment, prompt, config.prompt.seed)
        artefact.save(self.folder / part)
        return replace(method, artefact=artefact)

    def train_federated(self, changes: Flat) -> tuple[TrainedMethod, list[RoundRecord]]:
        """Tune over simulated sites; return also the record of the run's rounds.

        For a method that trains nothing, the record is one round: its score at the sites.
        """
        folder = self.folder / "run"
        output: Flat = {"server.output": str(folder), "server.overwrite": True}
        config = self.config.override(changes | output)
        experiment = open_experiment(config)
        method = TrainedMethod(experiment.clip, config, experiment.train.classes, None)
        if config.prompt.method in UNTRAINED:
            return method, [_scored_at_sites(experiment, config)]
        try:
            records = federate(config)
        finally:
            forget_sites()
        return replace(method, artefact=load_artefact(folder)), records


@dataclass(frozen=True)
class Measured:
    """The metrics of a trial, and the method that they are of."""

    metrics: Metrics
    method: TrainedMethod


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """An evaluation protocol.

    Attributes
    ----------
    run
        Tunes and measures.
    headline
        The metric that methods are plotted by.
    defaults
        The published setting, where it differs from a run's own defaults.
    """

    run: Callable[[Trial], Measured]
    headline: str
    defaults: Flat = field(default_factory=dict)


def last_scored(records: Sequence[RoundRecord]) -> RoundRecord:
    """Return the last round in which sites scored the prompt.

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


def mean(metrics: Metrics) -> float | None:
    """Return the mean of metrics; None where one is missing."""
    known = [value for value in metrics.values() if value is not None]
    return sum(known) / len(known) if known and len(known) == len(metrics) else None


def harmonic_mean(one: float | None, other: float | None) -> float | None:
    """Return 2 / (1 / one + 1 / other); None where either is missing."""
    if one is None or other is None:
        return None
    return 2 * one * other / (one + other) if one + other else 0.0


def accuracy_by_domain(method: TrainedMethod) -> Metrics:
    """Return ``accuracy_NAME`` on the test images of each domain, in their order.

    Raises
    ------
    DataError
        The images have no domains, or one has no test image.
    """
    test = open_experiment(method.config).test
    if not test.domain_names:
        raise DataError(
            "the images belong to no domains; take data.source = emoji, or a manifest with a "
            "domain column"
        )
    accuracies: Metrics = {}
    for number, name in enumerate(test.domain_names):
        images = test.of_domain(number)
        if not len(images):
            raise DataError(f"the domain {name!r} has no test image; raise data.test_limit")
        accuracies[f"accuracy_{name}"] = method.accuracy({}, images)
    return accuracies


def _scored_at_sites(experiment: Experiment, config: RunConfig) -> RoundRecord:
    """Return the record of one round in which sites score a prompt that is never tuned."""
    data = config.data
    prompt = build_prompt(config.prompt, experiment.clip, experiment.train.classes, data.template)
    sites = {}
    for number in range(data.clients):
        held_out = share(data, number, data.clients).holdout
        if len(held_out):
            score = evaluate(prompt, *experiment.encode(held_out, prompt.first_layer))
            sites[number] = SiteScore(
                accuracy=score.correct / score.count, nll=score.loss, examples=score.count
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
