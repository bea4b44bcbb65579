import numpy as np
import pytest
import torch

from client.features.encode import encode
from client.tuning.evaluate import evaluate
from client.tuning.fit import ScheduleWindow, fit
from fedprompt.backbone.clip import FrozenClip
from fedprompt.backbone.encoded import EncodedImages
from fedprompt.basis import columns
from fedprompt.experiments.centralised_training import fit_run
from fedprompt.prompts.averaging import gaussian_weights
from fedprompt.prompts.build import PRODUCT, build_prompt
from fedprompt.prompts.forms import begin_turn
from fedprompt.prompts.methods import prompt_config
from fedprompt.settings.fit import FitConfig
from fedprompt.settings.prompt import PromptConfig
from tests.unit.client.tuning.test_fit import IMAGES, LABELS, NAMES, TEMPLATE

EPOCHS = FitConfig(epochs=5, batch=8, learning_rate=0.05)


@pytest.fixture(scope="module")
def images(clip: FrozenClip) -> EncodedImages:
    return encode(IMAGES, clip, None, 8, 0)


def tuned(clip: FrozenClip, images: EncodedImages, config: PromptConfig):
    """Return the arrays and the loss of a whole run, and the prompts it passed through."""
    prompt = build_prompt(config, clip, NAMES, TEMPLATE)
    loss = fit_run(prompt, images, LABELS, EPOCHS, config)
    again, passed = build_prompt(config, clip, NAMES, TEMPLATE), []
    take = lambda epoch: passed.append((epoch, again.arrays()))  # noqa: E731
    assert fit(again, images, LABELS, EPOCHS, config.seed, after_epoch=take) == loss
    assert [epoch for epoch, _ in passed] == [1, 2, 3, 4, 5]
    return prompt.arrays(), [arrays for _, arrays in passed]


def test_promptsrc_ends_in_the_average_of_its_epochs(
    clip: FrozenClip, images: EncodedImages
) -> None:
    config = prompt_config(method="promptsrc", depth=2)
    found, passed = tuned(clip, images, config)
    for name, array in found.items():
        pairs = zip(gaussian_weights(5), passed, strict=True)
        expected = sum(weight * arrays[name].astype(float) for weight, arrays in pairs)
        np.testing.assert_allclose(array, expected, rtol=1e-5, atol=1e-7)
        assert np.abs(array - passed[-1][name]).max() > 1e-5


def test_low_rank_prompts_are_averaged_as_products(clip: FrozenClip, images: EncodedImages) -> None:
    config = prompt_config(method="promptsrc", depth=1, form="lowrank", rank=4)  # of full rank
    found, passed = tuned(clip, images, config)
    for name in ("text.0", "visual.0"):
        pairs = zip(gaussian_weights(5), passed, strict=True)
        expected = sum(
            weight * (arrays[f"{name}.A"].astype(float) @ arrays[f"{name}.B"])
            for weight, arrays in pairs
        )
        product = found[f"{name}.A"] @ found[f"{name}.B"]
        np.testing.assert_allclose(product, expected, rtol=1e-3, atol=1e-6)


def test_other_methods_end_where_they_end(clip: FrozenClip, images: EncodedImages) -> None:
    found, passed = tuned(clip, images, prompt_config(method="ivlp", depth=1))
    assert all(np.array_equal(found[name], passed[-1][name]) for name in found)


def test_a_short_last_batch_ends_an_epoch_once(clip: FrozenClip) -> None:
    """22 images in batches of 21, 22 or 23."""
    features = torch.nn.functional.normalize(torch.ones(22, 24), dim=-1)
    for batch in (21, 22, 23):
        prompt, seen = build_prompt(prompt_config(), clip, NAMES, TEMPLATE), []
        chosen = FitConfig(epochs=3, batch=batch)
        fit(prompt, EncodedImages(features), LABELS, chosen, 0, after_epoch=seen.append)
        assert seen == [1, 2, 3]


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_with_a_fresh_basis_few_epochs_learn_too(
    clip: FrozenClip, images: EncodedImages, epochs: int
) -> None:
    config = prompt_config(dropout=0.0)
    chosen = EPOCHS.model_copy(update={"epochs": epochs})
    fresh, fixed = (
        build_prompt(config, clip, NAMES, TEMPLATE, rule=rule) for rule in ("fresh-basis", PRODUCT)
    )
    before = evaluate(fresh, images, LABELS).loss
    for prompt in (fresh, fixed):
        fit_run(prompt, images, LABELS, chosen, config)
    gains = [before - evaluate(prompt, images, LABELS).loss for prompt in (fresh, fixed)]
    assert gains[0] > max(0, gains[1] / 2)


def test_with_a_fresh_basis_each_epoch_adds_a_turn(clip: FrozenClip, images: EncodedImages) -> None:
    """A federation of one: each epoch is a round's fit on that round's basis."""
    config = prompt_config(dropout=0.0)
    prompt = build_prompt(config, clip, NAMES, TEMPLATE, rule="fresh-basis")
    start = prompt.arrays()["ctx"]
    loss = fit_run(prompt, images, LABELS, EPOCHS, config)
    again, losses = build_prompt(config, clip, NAMES, TEMPLATE, rule="fresh-basis"), []
    once = EPOCHS.model_copy(update={"epochs": 1})
    for epoch in range(5):
        begin_turn(again, epoch)
        before, window = again.arrays()["ctx"], ScheduleWindow(start=epoch / 5, end=(epoch + 1) / 5)
        losses.append(fit(again, images, LABELS, once, config.seed + epoch, window=window))
        moved = again.arrays()["ctx"] - before
        basis = columns(4, 1, epoch)
        np.testing.assert_allclose(basis @ (basis.T @ moved), moved, atol=1e-6)
        assert np.abs(moved).max() > 0 or epoch == 0  # the rate begins near zero
    assert np.array_equal(prompt.arrays()["ctx"], again.arrays()["ctx"])
    assert loss == pytest.approx(np.mean(losses))
    assert np.linalg.matrix_rank(prompt.arrays()["ctx"] - start, rtol=1e-4) == 4
