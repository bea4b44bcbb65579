"""Train the text tower and the projection of the teacher's features, contrastively, together."""

import logging
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from tools.embedded_clip import optimizers
from tools.embedded_clip.data import UNSEEN, class_names
from tools.embedded_clip.examples import Batch, Examples
from tools.embedded_clip.probe import cache_fashion, probe
from tools.embedded_clip.prototypes import Prototypes, build
from tools.embedded_clip.towers import TOKENIZER, text_hidden, tokenize
from tools.embedded_clip.towers import build as build_model
from tools.embedded_clip.words import embed, nouns, token_strings

LOG = logging.getLogger(__name__)
SIZES = (48, 80, 96, 16)
CLEAN = 128


def start_projection(prototypes: Prototypes, views: Tensor) -> nn.Linear:
    """Start the map 1280 -> 256 at the principal axes of class means and of some views."""
    known = prototypes.means[prototypes.kind == 2]
    centre = known.mean(dim=0)
    spread = views.float() - views.float().mean(dim=0)
    rows = torch.cat([known - centre, 0.5 * spread])
    _, scales, axes = torch.linalg.svd(rows, full_matrices=False)
    axes = axes[:256] / (scales[:256, None] / scales[0]).sqrt()
    projection = nn.Linear(1280, 256)
    with torch.no_grad():
        projection.weight.copy_(axes)
        projection.bias.copy_(-axes @ centre)
    return projection


def start_tokens(model: CLIP) -> None:
    """Start the embedding of every token that occurs at MiniLM's view of its spelling."""
    texts = [lemma for noun in nouns() for lemma in noun.lemmas]
    ids = sorted({i for text in texts for i in TOKENIZER.encode(text)})
    vectors = embed(token_strings(ids))
    _, _, axes = torch.linalg.svd(vectors - vectors.mean(dim=0), full_matrices=False)
    reduced = (vectors - vectors.mean(dim=0)) @ axes[:192].T
    with torch.no_grad():
        model.token_embedding.weight[ids] = reduced * (0.02 / reduced.std())


def contrast(images: Tensor, texts: Tensor, keys: Tensor, scale: Tensor) -> Tensor:
    """Symmetric cross-entropy over cosine logits; other pairs of equal content are left out."""
    logits = scale * F.normalize(images, dim=1) @ F.normalize(texts, dim=1).T
    same = (keys[:, None] == keys[None]) & ~torch.eye(len(keys), dtype=torch.bool)
    logits = logits.masked_fill(same, -1e4)
    target = torch.arange(len(keys))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


class TextTrainer:
    """The model, its losses and its state."""

    def __init__(self, data: Path, work: Path, seed: int, copies: tuple[int, ...]) -> None:
        torch.manual_seed(seed)
        self.data, self.work = data, work
        self.prototypes = build(data, work)
        self.examples = Examples(work, self.prototypes, copies)
        self.lemmas = torch.from_numpy(np.load(work / "words.npz")["lemmas"])
        self.model = build_model()
        self.projection = start_projection(self.prototypes, self.examples.features[::50])
        self.language = nn.Linear(192, 384)
        start_tokens(self.model)
        self.model.visual.requires_grad_(False)
        self.clean = [n.split(", ")[0] for n in list(class_names(data).values())[:-UNSEEN]]
        self.generator = torch.Generator().manual_seed(seed)
        self.parts = nn.ModuleList([self.model, self.projection, self.language])
        self.optimizers = optimizers.make_optimizers(
            [self.parts], muon_rate=2e-3, adam_rate=1e-3, weight_decay=0.05
        )
        self.done = 0

    def clean_loss(self, scale: Tensor) -> Tensor:
        """Classify real, untransformed images among the plain captions of their classes."""
        rows = torch.randint(52_500, (CLEAN,), generator=self.generator)
        vectors = text_hidden(self.model, tokenize([f"a photo of a {n}." for n in self.clean]))
        images = self.projection(self.examples.features[rows].float())
        texts = F.normalize(vectors @ self.model.text_projection, dim=1)
        owner = self.examples.owner[rows]
        target = (owner[:, None] == self.prototypes.of_class[None]).long().argmax(dim=1)
        return F.cross_entropy(scale * F.normalize(images, dim=1) @ texts.T, target)

    def loss(self, batch: Batch) -> Tensor:
        """Contrast captions with features, and keep MiniLM's meaning of the words."""
        scale = self.model.logit_scale.exp().clamp(max=60)
        hidden = text_hidden(self.model, tokenize(batch.captions))
        texts, real = hidden @ self.model.text_projection, len(hidden) - SIZES[3]
        images = self.projection(batch.features[:real])
        meaning = F.cosine_similarity(self.language(hidden), self.lemmas[batch.lemmas])
        main = contrast(images, texts[:real].float(), batch.keys[:real], scale)
        return main + self.clean_loss(scale) + 0.5 * (1 - meaning).mean()

    def run(self, steps: int, every: int) -> None:
        """Train up to ``steps`` steps, logging a probe and saving a checkpoint now and then."""
        start, total = time.monotonic(), 0.0
        while self.done < steps:
            optimizers.set_rate(self.optimizers, self.done / steps)
            with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
                loss = self.loss(self.examples.draw(SIZES, self.generator))
            optimizers.step(self.optimizers, loss)
            self.done, total = self.done + 1, total + float(loss.detach())
            if self.done % every == 0 or self.done == steps:
                figures = probe(self.model, self.projection, self.data, self.work)
                minutes = (time.monotonic() - start) / 60
                LOG.info("%d %.3f %s %.1f min", self.done, total / every, figures, minutes)
                total = 0.0
                self.save()

    def save(self) -> None:
        """Write the checkpoint, atomically."""
        state = {
            "parts": self.parts.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
            "generator": self.generator.get_state(),
            "done": self.done,
        }
        torch.save(state, self.work / "text.tmp")
        (self.work / "text.tmp").rename(self.work / "text.pt")

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one."""
        if not (self.work / "text.pt").exists():
            return
        state = torch.load(self.work / "text.pt", weights_only=True)
        self.parts.load_state_dict(state["parts"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.generator.set_state(state["generator"])
        self.done = state["done"]


def train(
    data: Path,
    work: Path,
    *,
    steps: int,
    seed: int = 0,
    every: int = 250,
    copies: tuple[int, ...] = (0, 1, 2),
) -> None:
    """Train the text tower from the cached views; resumes by itself."""
    cache_fashion(work)
    trainer = TextTrainer(data, work, seed, copies)
    trainer.resume()
    trainer.run(steps, every)
