"""Tune a prompt on one machine's images from the run's first epoch to its last."""

from client.config import FitConfig
from client.fit import fit
from fedprompt.backbone.encoded import EncodedImages
from fedprompt.dense import products
from fedprompt.factors import nearest
from fedprompt.prompts.averaging import PromptAverage
from fedprompt.prompts.build import Prompt, is_averaged
from fedprompt.prompts.config import PromptConfig
from fedprompt.types import Labels


def fit_run(
    prompt: Prompt, images: EncodedImages, labels: Labels, config: FitConfig, tuned: PromptConfig
) -> float:
    """Tune ``prompt`` in place and return the mean cross-entropy, nats.

    Where the method asks for it (PromptSRC) the prompt ends as the average of its epochs; factors
    are averaged as products, and brought back to their rank.

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
    if not is_averaged(tuned.method):
        return fit(prompt, images, labels, config, tuned.seed)
    average = PromptAverage(config.epochs, products)

    def take(epoch: int) -> None:
        average.take(epoch, prompt.arrays())

    loss = fit(prompt, images, labels, config, tuned.seed, after_epoch=take)
    arrays, _ = nearest(average.total, prompt.arrays())
    prompt.load_arrays(arrays)
    return loss
