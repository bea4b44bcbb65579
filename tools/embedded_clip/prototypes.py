"""Where each noun lies in the teacher's feature space, seen or guessed.

Linear classifiers and class means are two views of one thing: with a shared within-class covariance
S the classifier is w = S^-1 (m - m0), so that m = m0 + a S (w - w0) (linear discriminant analysis).
The teacher's classifier rows of ImageNet, without the unseen classes, thus become class means at
our resolution. Ridge regression from MiniLM's sentence vectors guesses the means of other nouns.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tools.embedded_clip.cache import load_copy
from tools.embedded_clip.data import UNSEEN, class_names, load_split, trained_only
from tools.embedded_clip.teacher import load_teacher
from tools.embedded_clip.words import hidden, imagenet_rows, nouns

RIDGE = 1.0


@dataclass(frozen=True, kw_only=True)
class Prototypes:
    """Class means ``(nouns, 1280)``, how they are known ``(nouns,)``, and the noun of each class.

    ``kind`` is 2 for nouns with images or a classifier row, 1 for guessed ones, 0 for hidden ones,
    whose row is zero. ``of_class`` gives the noun of each of the 150 trained classes.
    """

    means: Tensor
    kind: Tensor
    of_class: Tensor


def ridge(inputs: Tensor, outputs: Tensor, weight: float) -> Tensor:
    """Solve min |X A - Y|^2 + weight |A|^2 for A."""
    gram = inputs.T @ inputs + weight * torch.eye(inputs.shape[1], dtype=inputs.dtype)
    return torch.linalg.solve(gram, inputs.T @ outputs)


def class_means(values: Tensor, labels: Tensor) -> Tensor:
    """Average ``(n, d)`` by label."""
    sums = torch.zeros(int(labels.max()) + 1, values.shape[1]).index_add_(0, labels, values)
    return sums / labels.bincount()[:, None]


def means_from_rows(features: Tensor, labels: Tensor, rows: Tensor, known: Tensor) -> Tensor:
    """Turn centred classifier rows ``(k, 1280)`` into class means; ``known`` are the trained."""
    means = class_means(features, labels)
    centre = means.mean(dim=0)
    within = features - means[labels]
    turned = rows @ (within.T @ within / len(within))
    scale = (turned[known] * (means - centre)).sum() / turned[known].square().sum()
    guess = centre + scale * turned
    guess[known] = means
    return guess


def build(data: Path, work: Path) -> Prototypes:
    """Place every noun."""
    _, _, features = load_copy(work, 0)
    _, labels = trained_only(*load_split(work, "train"))
    trained = list(class_names(data))[:-UNSEEN]
    every = nouns()
    position = {noun.wnid: i for i, noun in enumerate(every)}
    rows = {w: r for w, r in imagenet_rows().items() if w in position}
    rows = {w: r for w, r in rows.items() if not hidden(every[position[w]], data)}
    order = list(rows)
    classifier = load_teacher().classifier.weight.detach().float()[list(rows.values())]
    known = torch.tensor([order.index(w) for w in trained])
    seen = means_from_rows(features.float(), labels, classifier - classifier.mean(dim=0), known)
    senses = torch.from_numpy(np.load(work / "words.npz")["senses"])
    places = torch.tensor([position[w] for w in order])
    centre, about = seen.mean(dim=0), senses[places].mean(dim=0)
    guess = ridge(senses[places] - about, seen - centre, RIDGE)
    means = centre + (senses - about) @ guess
    kind = torch.tensor([0 if hidden(noun, data) else 1 for noun in every])
    means[places], kind[places] = seen, 2
    means[kind == 0] = 0
    of_class = torch.tensor([position[w] for w in trained])
    return Prototypes(means=means, kind=kind, of_class=of_class)
