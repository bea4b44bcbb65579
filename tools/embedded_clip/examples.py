"""Draw batches of (teacher features, caption) for the text tower.

Real examples are views of training images. The others are *transplanted*: a view keeps what its
transform and its own looks add, and its class mean is exchanged for another noun's:
f' = f + g (m_new - m_old), where g tells how much class signal is left under the transform.
"""

import random
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tools.embedded_clip.cache import load_copy
from tools.embedded_clip.captions import caption
from tools.embedded_clip.data import load_split, trained_only
from tools.embedded_clip.prototypes import Prototypes
from tools.embedded_clip.transforms import GROUPS
from tools.embedded_clip.words import nouns


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Features ``(b, 1280)``, captions, keys ``(b,)`` equal for equal content, lemma rows."""

    features: Tensor
    captions: list[str]
    keys: Tensor
    lemmas: Tensor


def signal_left(features: Tensor, codes: Tensor, residual: Tensor) -> list[Tensor]:
    """Estimate, group by group, the share of the class residual ``(n, 1280)`` that views keep."""
    shares = []
    for group, members in enumerate(GROUPS):
        slopes = []
        for number in range(len(members) + 1):
            chosen = codes[:, group] == number
            views = features[chosen].float()
            views = views - views.mean(dim=0)
            slopes.append((views * residual[chosen]).sum() / residual[chosen].square().sum())
        shares.append((torch.stack(slopes) / slopes[0]).clamp(0.05, 1.2))
    return shares


class Examples:
    """All cached views, and the nouns they can be transplanted to."""

    def __init__(self, work: Path, prototypes: Prototypes, copies: tuple[int, ...]) -> None:
        _, labels = trained_only(*load_split(work, "train"))
        loaded = [load_copy(work, copy)[1:] for copy in copies]
        self.codes = torch.cat([codes for codes, _ in loaded])
        self.features = torch.cat([features for _, features in loaded])
        self.owner = prototypes.of_class[labels].repeat(len(copies))
        self.means, self.kind = prototypes.means, prototypes.kind
        self.by_class = [(self.owner == noun).nonzero()[:, 0] for noun in prototypes.of_class]
        counts = torch.tensor([len(noun.lemmas) for noun in nouns()])
        self.first_lemma = counts.cumsum(0) - counts
        centre = self.means[prototypes.of_class].mean(dim=0)
        residual = self.means[self.owner] - centre
        self.shares = signal_left(self.features, self.codes, residual)

    def transplanted(self, rows: Tensor, targets: Tensor) -> Tensor:
        """Give views ``(b,)`` the class means of the nouns ``(b,)``."""
        left = torch.ones(len(rows))
        for group, share in enumerate(self.shares):
            left = left * share[self.codes[rows, group]]
        shift = self.means[targets] - self.means[self.owner[rows]]
        return self.features[rows].float() + left[:, None] * shift

    def draw(self, sizes: tuple[int, int, int, int], generator: torch.Generator) -> Batch:
        """Draw ``sizes`` = real classes (4 views each), ImageNet rows, guessed nouns, hidden ones.

        Hidden nouns come last, with zero features: they are only for the language loss.
        """
        real, rows, guessed, unseen = sizes
        classes = torch.randperm(len(self.by_class), generator=generator)[:real]
        views = [self.pick(self.by_class[int(c)], 4, generator) for c in classes]
        free = self.pick(torch.arange(len(self.owner)), rows + guessed + unseen, generator)
        chosen = torch.cat([*views, free])
        targets = torch.cat(
            [self.owner[torch.cat(views)]]
            + [
                self.pick((self.kind == kind).nonzero()[:, 0], count, generator)
                for kind, count in ((2, rows), (1, guessed), (0, unseen))
            ]
        )
        values = self.transplanted(chosen, targets)
        if unseen:
            values[-unseen:] = 0
        return self.describe(values, chosen, targets, generator)

    @staticmethod
    def pick(pool: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """Pick ``count`` members of a pool, repetition allowed."""
        return pool[torch.randint(len(pool), (count,), generator=generator)]

    def describe(
        self, values: Tensor, rows: Tensor, targets: Tensor, generator: torch.Generator
    ) -> Batch:
        """Caption the views ``rows`` as pictures of ``targets``."""
        seed = int(torch.randint(2**31, (1,), generator=generator))
        draw = random.Random(seed)  # noqa: S311 - captions are no secret
        every, captions, lemmas = nouns(), [], []
        for code, noun in zip(self.codes[rows].tolist(), targets.tolist(), strict=True):
            which = draw.randrange(len(every[noun].lemmas)) if draw.random() < 0.4 else 0
            captions.append(caption(every[noun].lemmas[which], code, draw))
            lemmas.append(int(self.first_lemma[noun]) + which)
        base = torch.tensor([8**group for group in range(len(GROUPS))])
        keys = targets * 8 ** len(GROUPS) + (self.codes[rows] * base).sum(dim=1)
        return Batch(features=values, captions=captions, keys=keys, lemmas=torch.tensor(lemmas))
