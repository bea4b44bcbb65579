"""Tune a prompt on one machine's images from the run's first epoch to its last."""

from collections.abc import Callable

from client.tuning.fit import Span, fit
from fedprompt.backbone.encoded import EncodedImages
from fedprompt.prompt_state import PromptState
from fedprompt.prompts.averaging import PromptAverage
from fedprompt.prompts.build import Prompt, is_averaged
from fedprompt.prompts.forms import FreshBasis, begin_turn, forms_of
from fedprompt.settings.fit import FitConfig
from fedprompt.settings.prompt import PromptConfig
from fedprompt.types import Labels


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
        span = Span(start=epoch / config.epochs, end=(epoch + 1) / config.epochs)
        total += fit(prompt, images, labels, once, seed + epoch, span=span)
        after_epoch(epoch + 1)
    return total / config.epochs
