"""Try a computation again with less memory when a GPU has too little (F31)."""

import logging
from collections.abc import Callable
from typing import TypeVar

import torch

from fedprompt.errors import BackboneError
from fedprompt.prompts.build import Prompt

Result = TypeVar("Result")
_log = logging.getLogger(__name__)


def retry_smaller(
    prompt: Prompt, compute: Callable[[], Result], generator: torch.Generator | None = None
) -> Result:
    """Return what ``compute`` returns; out of memory, half as much at a time, once.

    A text prompt's memory grows with the classes, a visual prompt's with the images of a batch. The
    random numbers are wound back, so that the second try draws the same dropout.

    Raises
    ------
    BackboneError
        The memory does not suffice for the second try either.
    """
    state = generator.get_state() if generator else None
    try:
        return compute()
    except torch.OutOfMemoryError as error:
        if not prompt.halve_chunk():
            raise BackboneError(_ADVICE) from error
    # here, not above: the first try's tensors are let go of with its exception
    _log.warning("the GPU's memory is short; from now on half as much at a time")
    if generator and state is not None:
        generator.set_state(state)
    try:
        return compute()
    except torch.OutOfMemoryError as error:
        raise BackboneError(_ADVICE) from error


def halved(compute: Callable[[int], Result], size: int) -> Result:
    """Return ``compute(size)``; out of memory, with half the size, down to one image at a time.

    Raises
    ------
    BackboneError
        One image is too many.
    """
    while True:
        try:
            return compute(size)
        except torch.OutOfMemoryError as error:
            if size == 1:
                raise BackboneError(
                    "the GPU's memory does not hold one image's activations; choose a smaller "
                    "backbone, free the GPU, or set backbone.device = cpu"
                ) from error
        size //= 2


_ADVICE = (
    "the GPU's memory does not hold the towers' activations, with half as much at a time either; "
    "free the GPU, choose a smaller backbone, or set backbone.device = cpu"
)
