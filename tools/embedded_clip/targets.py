"""Where each noun lies in the joint space: known from the teacher's classifier, or guessed.

The joint space is spanned by the principal axes of the classifier's centred rows, so that an image
lies at ``axes @ (feature - centre)`` and a class at the direction of ``axes @ row``.
"""

from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from tools.embedded_clip.data import UNSEEN, class_names
from tools.embedded_clip.wordnet import Vocabulary

SHARPNESS = 1.5  # of the kernel of MiniLM's vectors, exp(-1.5 d^2)
RIDGE = 0.1
BROAD = 400  # a noun above more classes than these is no place but a region


class Origin(IntEnum):
    """How the place of a noun is known."""

    GUESSED = 0  # from its definition and what stands above it
    INNER = 1  # the mean of the classes below it
    CLASS = 2  # a row of the classifier


@dataclass(frozen=True, kw_only=True)
class Targets:
    """Unit vectors ``(nouns, joint)`` and how each is known ``(nouns,)``."""

    vectors: Tensor
    origin: Tensor


def principal_axes(classifier: Tensor, joint: int) -> Tensor:
    """Return the ``joint`` leading axes ``(joint, features)`` of the classifier's centred rows."""
    centred = classifier - classifier.mean(dim=0)
    return torch.linalg.svd(centred, full_matrices=False).Vh[:joint]


def class_vectors(classifier: Tensor, axes: Tensor) -> Tensor:
    """Return the unit vectors ``(classes, joint)`` of the classifier's rows."""
    return F.normalize((classifier - classifier.mean(dim=0)) @ axes.T, dim=1)


def hidden_classes(data: Path, vocabulary: Vocabulary) -> set[str]:
    """List the ids that are learned without their row: the unseen ones and their namesakes."""
    unseen = list(class_names(data).items())[-UNSEEN:]
    ids = {wnid for wnid, _ in unseen}
    names = {name.lower() for _, synonyms in unseen for name in synonyms.split(", ")}
    rows = {vocabulary.nouns[row].wnid for row in vocabulary.rows}
    namesakes = {
        vocabulary.nouns[position].wnid
        for name, position in vocabulary.names
        if name.lower() in names
    }
    return ids | (namesakes & rows)


def relatedness(vocabulary: Vocabulary, known: list[int]) -> Tensor:
    """Return unit rows ``(nouns, ancestors)``: what stands above each noun, rare ones first.

    An ancestor weighs log(known nouns / known nouns below it), as a word does in a search engine.
    """
    nodes = {wnid: i for i, wnid in enumerate(vocabulary.position)}
    above = torch.zeros(len(vocabulary.nouns), len(nodes))
    for position, noun in enumerate(vocabulary.nouns):
        line = [nodes[w] for w in (noun.wnid, *vocabulary.ancestors[position]) if w in nodes]
        above[position, line] = 1
    weight = (len(known) / (above[known].sum(dim=0) + 0.5)).log().clamp(min=0)
    return F.normalize(above * weight, dim=1)


def place_nouns(
    vocabulary: Vocabulary, classes: Tensor, senses: Tensor, hidden: set[str]
) -> Targets:
    """Place every noun.

    Parameters
    ----------
    vocabulary
        The nouns.
    classes
        ``(1000, joint)`` unit vectors of ImageNet's classes.
    senses
        ``(nouns, 384)`` MiniLM's vectors of the definitions.
    hidden
        Ids whose classifier row must not be used.
    """
    seen = {
        position: classes[row]
        for row, position in enumerate(vocabulary.rows)
        if vocabulary.nouns[position].wnid not in hidden
    }
    below: dict[int, list[Tensor]] = {}
    for position, vector in seen.items():
        for wnid in vocabulary.ancestors[position]:
            above = vocabulary.position[wnid]
            if above not in seen and wnid not in hidden:
                below.setdefault(above, []).append(vector)
    inner = {p: torch.stack(v).mean(dim=0) for p, v in below.items() if len(v) <= BROAD}
    vectors = torch.zeros(len(vocabulary.nouns), classes.shape[1])
    origin = torch.full((len(vectors),), int(Origin.GUESSED))
    for places, how in ((inner, Origin.INNER), (seen, Origin.CLASS)):
        at = list(places)
        vectors[at], origin[at] = torch.stack(list(places.values())), int(how)
    known = (origin != Origin.GUESSED).nonzero()[:, 0]
    related = relatedness(vocabulary, list(seen))

    def kernel(left: Tensor) -> Tensor:
        near = (-SHARPNESS * torch.cdist(senses[left], senses[known]).square()).exp()
        return near * (1 + related[left] @ related[known].T)

    solved = torch.linalg.solve(kernel(known) + RIDGE * torch.eye(len(known)), vectors[known])
    guessed = (origin == Origin.GUESSED).nonzero()[:, 0]
    vectors[guessed] = torch.cat([kernel(part) @ solved for part in guessed.split(2000)])
    return Targets(vectors=F.normalize(vectors, dim=1), origin=origin)
