"""Refuse constants that no prompt folds to, before a graph is made of them."""

from dataclasses import fields

import numpy as np
import numpy.typing as npt

from export.fold.constants import Constants
from fedprompt.errors import GraphError

_OFF = 1e-3  # how far a unit vector's length may be from one


def require_sound(constants: Constants) -> None:
    """Check shapes, lengths and numbers of all constants.

    Raises
    ------
    GraphError
        Says which constant is wrong, what it is and what was expected.
    """
    vectors = constants.class_vectors
    _check_vectors("class vectors", vectors, "classes joint", unit=constants.bias is None)
    classes, joint = vectors.shape
    if constants.bias is not None:
        _check_array("bias", constants.bias, (classes,))
    if constants.adapter is not None:
        for field in fields(constants.adapter):
            array = getattr(constants.adapter, field.name)
            square = not field.name.endswith("_bias")
            _check_array(f"adapter's {field.name}", array, (joint, joint) if square else (joint,))
    _check_visual(constants)
    if constants.mixture is not None:
        _check_mixture(constants, constants.mixture)


def _check_vectors(
    what: str, vectors: npt.NDArray[np.float32], shape: str, *, unit: bool = True
) -> None:
    found = "no vectors"
    if vectors.ndim == len(shape.split()) and vectors.size:
        lengths = np.linalg.norm(vectors, axis=-1)
        if np.isfinite(lengths).all() and (not unit or np.allclose(lengths, 1, atol=_OFF)):
            return
        found = f"lengths from {lengths.min():.3g} to {lengths.max():.3g}"
    raise GraphError(
        f"the {what} have shape {list(vectors.shape)} and {found}; expected [{shape}], each "
        + ("of length 1" if unit else "finite")
    )


def _check_array(what: str, array: npt.NDArray[np.float32], shape: tuple[int, ...]) -> None:
    if array.shape != shape or not np.isfinite(array).all():
        raise GraphError(
            f"the {what} has shape {list(array.shape)}; expected finite numbers {list(shape)}"
        )


def _check_visual(constants: Constants) -> None:
    if (visual := constants.visual) is None:
        return
    tokens = visual.tokens
    if tokens.ndim != 3 or not tokens.size or not np.isfinite(tokens).all() or visual.first < 0:
        raise GraphError(
            f"the visual prompts have shape {list(tokens.shape)} and enter at block "
            f"{visual.first}; expected finite numbers [layers length width] from block 0 or later"
        )


def _check_mixture(constants: Constants, mixture: npt.NDArray[np.float32]) -> None:
    _check_vectors("domains' class vectors", mixture, "domains classes joint")
    visual, expected = constants.visual, constants.class_vectors.shape
    fits = visual is not None and visual.first == 0 and visual.tokens.shape[:2] == (1, len(mixture))
    if not fits or mixture.shape[1:] != expected:
        tokens = "none" if visual is None else f"{list(visual.tokens.shape)} from {visual.first}"
        raise GraphError(
            f"the domains' class vectors have shape {list(mixture.shape)} and the visual prompts "
            f"are {tokens}; expected [domains, {expected[0]}, {expected[1]}] and one matrix that "
            "enters at block 0, a token for each domain"
        )
