"""Learning rate over a federated run: it rises, then falls as a cosine across all rounds."""

import math

from fedprompt.settings.fit import FitConfig


def rate(config: FitConfig, progress: float) -> float:
    """Return the learning rate at ``progress`` (0 to 1) of the whole run.

    Linear warm-up over the share ``fit.warmup``, then a cosine to zero (CoOp's schedule) or a
    constant.
    """
    if progress < config.warmup:
        return config.learning_rate * max(progress / config.warmup, 1e-2)
    if config.schedule == "constant":
        return config.learning_rate
    passed = (progress - config.warmup) / (1 - config.warmup)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, passed)))
