import math

import numpy as np
import pytest

from fedprompt.prompt_state import PromptState
from fedprompt.prompts.averaging import PromptAverage, gaussian_weights


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 20, 1000])
def test_weights_are_the_gaussians_and_sum_to_one(steps: int) -> None:
    found = gaussian_weights(steps)
    assert found.shape == (steps,)
    assert found.sum() == pytest.approx(1, rel=1e-12)
    density = [math.exp(-((t / steps - 0.75) ** 2) / (2 * 0.05**2)) for t in range(1, steps + 1)]
    np.testing.assert_allclose(found, np.array(density) / sum(density), rtol=1e-9)


def test_of_twenty_epochs_the_fifteenth_counts_most_as_in_the_papers_code() -> None:
    """There the mean is epoch 15 and the standard deviation one epoch."""
    found = gaussian_weights(20)
    assert found.argmax() == 14
    epochs = np.arange(1, 21)
    mean = (found * epochs).sum()
    assert mean == pytest.approx(15, abs=1e-4)
    assert math.sqrt((found * (epochs - mean) ** 2).sum()) == pytest.approx(1, abs=1e-3)


def test_prompts_are_averaged_as_products() -> None:
    rng = np.random.default_rng(0)
    steps = [
        PromptState(
            {
                "ctx.A": rng.normal(size=(4, 2)),
                "ctx.B": rng.normal(size=(2, 6)),
                "bias": rng.normal(size=3),
            }
        )
        for _ in range(7)
    ]
    average, weights = PromptAverage(7, PromptState.lift), gaussian_weights(7)
    for number, arrays in enumerate(steps, start=1):
        average.take(number, arrays)
    expected = sum(
        w * (s["ctx.A"].astype(float) @ s["ctx.B"].astype(float))
        for w, s in zip(weights, steps, strict=True)
    )
    assert set(average.total) == {"ctx", "bias"}
    np.testing.assert_allclose(average.total["ctx"], expected, rtol=1e-6)
    bias = sum(w * s["bias"].astype(float) for w, s in zip(weights, steps, strict=True))
    np.testing.assert_allclose(average.total["bias"], bias, rtol=1e-12)
