"""Solve for the text tower: definitions, places of nouns, token vectors, weights."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from tools.embedded_clip import language, wordnet
from tools.embedded_clip.joint import cache_joint
from tools.embedded_clip.targets import hidden_classes, place_nouns
from tools.embedded_clip.text_tower import Layout, Solved, Strength
from tools.embedded_clip.tokens import solve_tokens
from tools.embedded_clip.towers import build

SCALE = 30.0  # of the logits


def solve(data: Path, work: Path, teacher: nn.Module, seed: int) -> None:
    """Write ``work/text.pt``: the tower's weights and the token rows, under the assets' names."""
    joint = cache_joint(work, teacher)
    vocabulary = wordnet.Vocabulary(wordnet.WordNet(work / wordnet.FOLDER))
    language.cache_embeddings(work, vocabulary)
    senses = torch.from_numpy(np.load(work / "senses.npy"))
    hidden = hidden_classes(data, vocabulary)
    targets = place_nouns(vocabulary, joint.classes, senses, hidden)
    ids, vectors = solve_tokens(vocabulary, targets)
    torch.save(assemble(ids, vectors, seed), work / "text.pt")


def assemble(ids: list[int], vectors: Tensor, seed: int) -> dict[str, Tensor]:
    """Return the text tower's tensors from token ids and vectors ``(tokens, joint)``."""
    empty = build()
    layers, (positions, width) = len(empty.transformer.resblocks), empty.positional_embedding.shape
    generator = torch.Generator().manual_seed(seed)
    layout = Layout(width=width)
    solved = Solved(layout, Strength(), vectors.shape[1], generator)
    return solved.state(layers, positions) | {
        "logit_scale": torch.tensor(SCALE).log(),
        "token_ids": torch.tensor(ids, dtype=torch.int32),
        "token_rows": solved.tokens(vectors),
        "token_neutral": solved.neutral(),
    }
