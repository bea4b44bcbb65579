"""One vector per token by least squares: the mean of a name's tokens is the name's place."""

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_array
from torch import Tensor

from tools.embedded_clip.targets import Origin, Targets
from tools.embedded_clip.towers import TOKENIZER
from tools.embedded_clip.wordnet import Vocabulary

Matrix = npt.NDArray[np.float32]

WEIGHT = {Origin.CLASS: 1.0, Origin.INNER: 0.5, Origin.GUESSED: 0.05}
SYNONYM = 0.5  # weight of a noun's further names
RIDGE = 0.005
STEPS = 30  # of conjugate gradients
NEUTRAL = ("a", "an", "the", "of", "photo", "picture", "image", ".", ",")
"""Words that say that something is a picture, not of what: they get no meaning of their own."""


def neutral_tokens() -> set[int]:
    """List the tokens of the words without a meaning of their own."""
    return {token for word in NEUTRAL for token in TOKENIZER.encode(word)}


def solve_tokens(vocabulary: Vocabulary, targets: Targets) -> tuple[list[int], Tensor]:
    """Return token ids and their vectors ``(tokens, joint)``."""
    neutral = neutral_tokens()
    coded = [
        ([token for token in TOKENIZER.encode(name) if token not in neutral], position)
        for name, position in vocabulary.names
    ]
    coded = [(tokens, position) for tokens, position in coded if tokens]
    ids = sorted({token for tokens, _ in coded for token in tokens})
    place = {token: i for i, token in enumerate(ids)}
    weights, met = [], set()
    for _, position in coded:
        weight = WEIGHT[Origin(int(targets.origin[position]))]
        weights.append(weight * (SYNONYM if position in met else 1.0))
        met.add(position)
    root = np.sqrt(np.asarray(weights, dtype=np.float32))
    entries = [
        (row, place[token], root[row] / len(tokens))
        for row, (tokens, _) in enumerate(coded)
        for token in tokens
    ]
    rows, columns, values = zip(*entries, strict=True)
    mean = csr_array((values, (rows, columns)), shape=(len(coded), len(ids)), dtype=np.float32)
    wanted = root[:, None] * targets.vectors[[position for _, position in coded]].numpy()
    return ids, torch.from_numpy(ridge(mean, wanted, RIDGE, STEPS))


def ridge(inputs: csr_array, outputs: Matrix, weight: float, steps: int) -> Matrix:
    """Solve min |A X - Y|^2 + weight |X|^2 for a sparse A by conjugate gradients.

    Hestenes and Stiefel 1952, on the normal equations, every column of Y at once.
    """
    backward = inputs.T.tocsr()
    residual = backward @ outputs
    solution, direction = np.zeros_like(residual), residual.copy()
    energy = np.square(residual).sum(axis=0)
    for _ in range(steps):
        curved = backward @ (inputs @ direction) + weight * direction
        length = energy / (direction * curved).sum(axis=0).clip(min=1e-12)
        solution += length * direction
        residual -= length * curved
        previous, energy = energy, np.square(residual).sum(axis=0)
        direction = residual + energy / previous.clip(min=1e-12) * direction
    return solution
