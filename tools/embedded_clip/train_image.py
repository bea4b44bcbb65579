"""Train the image tower: labels, the teacher's features, and the words' joint space."""

import logging
import os
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from open_clip.transformer import PatchDropout, VisionTransformer
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from tools.embedded_clip import optimizers
from tools.embedded_clip.cache import load_copy
from tools.embedded_clip.data import UNSEEN, class_names, load_split, trained_only
from tools.embedded_clip.initial import normalised, start
from tools.embedded_clip.joint import cache_joint
from tools.embedded_clip.pack import ASSETS
from tools.embedded_clip.targets import hidden_classes
from tools.embedded_clip.teacher import PIXELS, load_teacher
from tools.embedded_clip.towers import build, text_model, text_vectors
from tools.embedded_clip.wordnet import FOLDER, Vocabulary, WordNet, imagenet_ids, imagenet_names

LOG = logging.getLogger(__name__)
BATCH = 256
SCALE = 30.0
RIDGE = 1e-3  # of the projection, as a share of a state's mean square
SPARSE = 8  # every how many images the projection is solved on
WHOLE = 0.94
"""From this share of the training on, no patches are dropped."""


def image_hidden(visual: VisionTransformer, pixels: Tensor) -> Tensor:
    """Return the class token's final state ``(b, width)``, before the projection."""
    x = visual.conv1(pixels).flatten(2).transpose(1, 2)
    first = visual.class_embedding.expand(len(x), 1, -1)
    x = torch.cat([first.to(x.dtype), x], dim=1) + visual.positional_embedding
    x = visual.transformer(visual.ln_pre(visual.patch_dropout(x)))
    return visual.ln_post(x[:, 0])


def shifted(images: Tensor, generator: torch.Generator, reach: int = 5) -> Tensor:
    """Mirror half of the images and move the whole batch by a few pixels."""
    mirror = torch.rand(len(images), generator=generator) < 0.5
    images = torch.where(mirror[:, None, None, None], images.flip(3), images)
    dx, dy = torch.randint(0, 2 * reach + 1, (2,), generator=generator).tolist()
    padded = F.pad(images, (reach, reach, reach, reach), mode="reflect")
    return padded[..., dy : dy + 64, dx : dx + 64]


def accuracy(images: Tensor, labels: Tensor, classes: Tensor) -> float:
    """Return the share of images ``(n, d)`` whose nearest class vector ``(c, d)`` is their own."""
    scores = F.normalize(images, dim=1) @ F.normalize(classes, dim=1).T
    return float((scores.argmax(dim=1) == labels).float().mean())


def shipped_blocks() -> dict[str, Tensor]:
    """Return the shipped image tower without its projection."""
    state = load_file(ASSETS / "embedded.safetensors")
    tower = {name.removeprefix("visual."): tensor.float() for name, tensor in state.items()}
    return {name: tensor for name, tensor in tower.items() if name != "proj"}


class Joint:
    """What the image tower is taught: the teacher's places, and the words around them.

    ``classes`` are the vectors of the 200 class names, for checks; ``anchors`` are what is trained
    against: the 150 trained classes, then ImageNet's other classes without the hidden ones.
    """

    def __init__(self, data: Path, work: Path) -> None:
        self.space = cache_joint(work, load_teacher())
        model = text_model(torch.load(work / "text.pt", weights_only=True))
        vocabulary = Vocabulary(WordNet(work / FOLDER))
        hidden = hidden_classes(data, vocabulary)
        trained = list(class_names(data).items())[:-UNSEEN]
        names = [synonyms.split(", ")[0] for synonyms in class_names(data).values()]
        left_out = hidden | {wnid for wnid, _ in trained}
        pairs = zip(imagenet_ids(), imagenet_names(), strict=True)
        anchors = names[:-UNSEEN] + [found[0] for wnid, found in pairs if wnid not in left_out]
        with torch.inference_mode():
            vectors = text_vectors(model, [f"a photo of a {n}." for n in names + anchors])
        vectors = F.normalize(vectors, dim=1).clone()
        self.classes, self.anchors = vectors[: len(names)], vectors[len(names) :]

    def target(self, features: Tensor) -> Tensor:
        """Map the teacher's features ``(b, 1280)`` to the joint space, unit length."""
        return self.space.place(features, PIXELS)


@torch.no_grad()
def solve_projection(hidden: Tensor, wanted: Tensor) -> Tensor:
    """Return the matrix ``(width, joint)`` from final states to where the teacher places them.

    Ridge; what the states share is left to no bias, for open_clip's projection has none.
    """
    gram = hidden.T @ hidden + RIDGE * hidden.square().sum() / hidden.shape[1] * torch.eye(
        hidden.shape[1]
    )
    return torch.linalg.solve(gram, hidden.T @ wanted)


@torch.inference_mode()
def final_states(visual: VisionTransformer, images: Tensor) -> Tensor:
    """Return the final states ``(n, width)`` of uint8 images ``(n, 3, 64, 64)``."""
    visual.eval()
    with torch.autocast("cpu", torch.bfloat16):
        states = [image_hidden(visual, normalised(b)).float() for b in images.split(125)]
    visual.train()
    return torch.cat(states)


class ImageTrainer:
    """The tower, its helper heads, its losses and its state."""

    def __init__(
        self, data: Path, work: Path, seed: int, copies: tuple[int, ...], from_assets: bool
    ) -> None:
        torch.manual_seed(seed)
        self.work = work
        self.copies = [load_copy(work, copy) for copy in copies]
        _, self.labels = trained_only(*load_split(work, "train"))
        clean = self.copies[0][2].float()
        self.centre, self.spread = clean.mean(dim=0), clean.std(dim=0) + 0.02
        self.visual = build().visual
        if from_assets:
            self.visual.load_state_dict(shipped_blocks(), strict=False)
        else:
            start(self.visual, self.copies[0][0][::25])
        self.heads = nn.ModuleList([nn.Linear(192, 150), nn.Linear(192, 1280)])
        self.joint = Joint(data, work)
        few = self.copies[0][0][::SPARSE]
        wanted = self.joint.target(self.copies[0][2][::SPARSE])
        self.visual.proj.data = solve_projection(final_states(self.visual, few), wanted).clone()
        self.parts = nn.ModuleList([self.visual, self.heads])
        self.optimizers = optimizers.make_optimizers(
            [self.parts], muon_rate=2e-3, adam_rate=1e-3, weight_decay=0.05
        )
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        self.batch = BATCH // (dist.get_world_size() if dist.is_initialized() else 1)
        self.generator = torch.Generator().manual_seed(seed + 100 * self.rank)
        self.done = 0

    def draw(self) -> tuple[Tensor, Tensor, Tensor]:
        """Draw pixels ``(b, 3, 64, 64)``, features and labels, a part of each copy."""
        pixels, features, rows = [], [], []
        for images, _, values in self.copies:
            chosen = torch.randint(
                len(images), (self.batch // len(self.copies),), generator=self.generator
            )
            pixels.append(shifted(normalised(images[chosen]), self.generator))
            features.append(values[chosen].float())
            rows.append(chosen)
        return torch.cat(pixels), torch.cat(features), self.labels[torch.cat(rows)]

    def joint_loss(self, hidden: Tensor, features: Tensor, labels: Tensor) -> Tensor:
        """Classify among the anchors as labels and teacher say, and lie where it lies."""
        image = F.normalize(hidden.float() @ self.visual.proj, dim=1)
        target, anchors = self.joint.target(features), self.joint.anchors
        wanted = (SCALE * target @ anchors.T).softmax(dim=1)
        wanted = 0.5 * wanted + 0.5 * F.one_hot(labels, len(anchors))
        apart = F.cross_entropy(SCALE * image @ anchors.T, wanted)
        near = F.cross_entropy(SCALE * image @ target.T, torch.arange(len(image)))
        return apart + 0.5 * near + 4 * (1 - (image * target).sum(dim=1)).mean()

    def loss(self) -> Tensor:
        """Classify, tell the teacher's features, and meet the joint space once there is one."""
        pixels, features, labels = self.draw()
        hidden = image_hidden(self.visual, pixels)
        wanted = (features.float() - self.centre) / self.spread
        told = F.cosine_similarity(self.heads[1](hidden).float(), wanted)
        total = 5 * (1 - told).mean()
        named = F.cross_entropy(self.heads[0](hidden), labels, label_smoothing=0.1)
        return total + 0.5 * named + self.joint_loss(hidden, features, labels)

    @torch.inference_mode()
    def check(self, count: int) -> dict[str, float]:
        """Measure accuracies on ``count`` validation images, in per cent."""
        images, labels = load_split(self.work, "val")
        images, labels = images[:count], labels[:count]
        states, old = final_states(self.visual, images), labels < 200 - UNSEEN
        logits = self.heads[0](states[old])
        vectors, classes = states @ self.visual.proj, self.joint.classes
        figures = {
            "head": float((logits.argmax(1) == labels[old]).float().mean()),
            "trained": accuracy(vectors[old], labels[old], classes[:-UNSEEN]),
            "unseen": accuracy(vectors[~old], labels[~old] - 150, classes[-UNSEEN:]),
        }
        return {name: round(100 * value, 1) for name, value in figures.items()}

    def run(self, steps: int, every: int) -> None:
        """Train up to ``steps`` steps, logging and saving a checkpoint now and then."""
        start_time, total = time.monotonic(), 0.0
        self.visual.train()
        while self.done < steps:
            progress = self.done / steps
            self.visual.patch_dropout = PatchDropout(0.5) if progress < WHOLE else nn.Identity()
            optimizers.set_rate(self.optimizers, progress, flat=0.5)
            with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
                loss = self.loss()
            optimizers.step(self.optimizers, loss)
            self.done, total = self.done + 1, total + float(loss.detach())
            if self.rank == 0 and (self.done % every == 0 or self.done == steps):
                figures = self.check(10_000 if self.done == steps else 2_000)
                minutes = (time.monotonic() - start_time) / 60
                LOG.info("%d %.3f %s %.1f min", self.done, total / every, figures, minutes)
                total = 0.0
                self.save()

    def save(self) -> None:
        """Write the checkpoint, atomically."""
        state = {
            "parts": self.parts.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
            "generator": self.generator.get_state(),
            "torch": torch.get_rng_state(),
            "done": self.done,
        }
        torch.save(state, self.work / "image.tmp")
        (self.work / "image.tmp").rename(self.work / "image.pt")

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one."""
        if not (self.work / "image.pt").exists():
            return
        state = torch.load(self.work / "image.pt", weights_only=True)
        self.parts.load_state_dict(state["parts"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.done = state["done"]
        if self.rank:  # only the first process's random state is kept
            self.generator.manual_seed(100 * self.rank + self.done)
            torch.manual_seed(100 * self.rank + self.done)
            return
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["torch"])


def train(
    data: Path,
    work: Path,
    *,
    steps: int,
    from_assets: bool,
    seed: int = 0,
    every: int = 100,
    copies: tuple[int, ...] = (0, 1, 2, 3),
) -> None:
    """Train the image tower from the cached views; resumes by itself.

    ``from_assets`` begins at the blocks that the project ships and not at random ones. Without
    steps only the projection is solved for.
    """
    if "WORLD_SIZE" in os.environ:  # started by torchrun
        dist.init_process_group("gloo")
    trainer = ImageTrainer(data, work, seed, copies, from_assets)
    trainer.resume()
    trainer.run(steps, every)
    if steps == 0:
        trainer.save()
