"""Tune a prompt on one machine's images: the baseline that a federation must beat."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from client.tuning.evaluate import predict
from client.tuning.fit import ScheduleWindow, fit
from fedprompt.artefact import CONFIG, Artefact
from fedprompt.backbone.encoded import EncodedImages
from fedprompt.data.image_set import ImageSet
from fedprompt.errors import ConfigError
from fedprompt.experiments.evaluation import metrics
from fedprompt.experiments.setup import Experiment, open_experiment
from fedprompt.prompt_state import PromptState
from fedprompt.prompts.artefacts import to_artefact
from fedprompt.prompts.averaging import PromptAverage
from fedprompt.prompts.build import Prompt, bank_of, build_prompt, is_averaged
from fedprompt.prompts.forms import FreshBasis, begin_turn, forms_of
from fedprompt.prompts.template import Template
from fedprompt.run_folder import RunFolder
from fedprompt.settings.fit import FitConfig
from fedprompt.settings.prompt import PromptConfig
from fedprompt.settings.run_config import RunConfig
from fedprompt.types import Labels


def train(run: RunConfig, output: Path, *, overwrite: bool) -> tuple[dict[str, Any], str]:
    """Tune the configured prompt, save its artefact, and return the result and its lines.

    Raises
    ------
    ConfigError
        The folder already holds a prompt, or ``prompt.personal`` asks for sites.
    DataError
        There are no images to train or to score on.
    """
    if not overwrite and (output / CONFIG).exists():
        raise ConfigError(
            f"{output} holds a prompt already; give another --output, or replace it with "
            "--overwrite"
        )
    experiment, config = open_experiment(run), run.prompt
    if config.personal != "global":
        raise ConfigError(
            f"prompt.personal = {config.personal} is about sites of a federation, and `fedprompt "
            "train` has one prompt; leave it out, or use `fedprompt simulate`"
        )
    zero_shot = Template(experiment.clip, experiment.train.classes, experiment.data.template)
    before = _accuracy(experiment, zero_shot)
    prompt, loss = tune(experiment, run, experiment.train)
    after = _accuracy(experiment, prompt)
    artefact_of(experiment, prompt, config.seed).save(output)
    RunFolder(output).write_settings(run.flat())
    result = {
        "artefact": str(output),
        "loss": loss,
        "zero_shot_accuracy": before,
        "accuracy": after,
    }
    return result, (
        f"zero-shot {before:.1%}, tuned {after:.1%} on {len(experiment.test)} held-out images; "
        f"artefact in {output}"
    )


def tune(experiment: Experiment, run: RunConfig, images: ImageSet) -> tuple[Prompt, float]:
    """Return the configured prompt, tuned on some images, and its mean cross-entropy, nats."""
    config, template = run.prompt, experiment.data.template
    # a federation of one: under the rule fresh-basis its epochs are the rounds
    rule = run.server.rule
    prompt = build_prompt(config, experiment.clip, images.classes, template, rule=rule)
    encoded, labels = experiment.encode(images, prompt.first_layer, bank_of(config.method))
    return prompt, fit_run(prompt, encoded, labels, experiment.fit, config)


def artefact_of(experiment: Experiment, prompt: Prompt, seed: int) -> Artefact:
    """Return a centrally tuned prompt as an artefact: of round 0, merged by no rule."""
    return to_artefact(
        experiment.clip,
        prompt,
        experiment.train.classes,
        experiment.data.template,
        round=0,
        seed=seed,
        white_level=experiment.data.white_level,
        aggregation=None,
    )


def _accuracy(experiment: Experiment, prompt: Prompt) -> float:
    images, labels = experiment.encode(experiment.test, prompt.first_layer)
    return metrics(predict(prompt, images), labels)["accuracy"]


def fit_run(
    prompt: Prompt, images: EncodedImages, labels: Labels, config: FitConfig, tuned: PromptConfig
) -> float:
    """Tune ``prompt`` in place and return the mean cross-entropy, nats.

    Where the method asks for it (PromptSRC) the prompt ends as the average of its epochs; factors
    are averaged as products, and brought back to their rank. With a fresh basis each epoch is a
    turn, as each round of a federation is, and its optimiser starts anew.

    Parameters
    ----------
    prompt, images, labels, config
        As `fit` takes them.
    tuned
        The prompt's settings: its method, and the seed of the order of the images.

    Raises
    ------
    PromptError, BackboneError
        As `fit` does.
    """
    average = PromptAverage(config.epochs, PromptState.lift) if is_averaged(tuned.method) else None

    def take(epoch: int) -> None:
        if average:
            average.take(epoch, prompt.arrays())

    if any(isinstance(form, FreshBasis) for form in forms_of(prompt)):
        loss = _fit_turns(prompt, images, labels, config, tuned.seed, take)
    else:
        loss = fit(prompt, images, labels, config, tuned.seed, after_epoch=take)
    if average:
        prompt.load_arrays(prompt.arrays().project(average.total)[0])
    return loss


def _fit_turns(
    prompt: Prompt,
    images: EncodedImages,
    labels: Labels,
    config: FitConfig,
    seed: int,
    after_epoch: Callable[[int], None],
) -> float:
    """Tune for one epoch after the other, each on a basis of its own; return the mean loss."""
    once, total = config.model_copy(update={"epochs": 1}), 0.0
    for epoch in range(config.epochs):
        begin_turn(prompt, epoch)
        window = ScheduleWindow(start=epoch / config.epochs, end=(epoch + 1) / config.epochs)
        total += fit(prompt, images, labels, once, seed + epoch, window=window)
        after_epoch(epoch + 1)
    return total / config.epochs
