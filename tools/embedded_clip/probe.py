"""Check a text tower early, on the teacher's features: zero-shot and steering by words alone."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from torch import Tensor, nn

from fedprompt.data.decode import decode
from fedprompt.data.fashion_mnist import CLASSES, read_fashion_mnist
from fedprompt.data.shots import few_shot
from fedprompt.data.splits import Split
from tools.embedded_clip.data import UNSEEN, class_names, load_split
from tools.embedded_clip.teacher import features, load_teacher
from tools.embedded_clip.towers import text_vectors

STEERED = (
    "a greyscale photo of a {} on black",
    "a blurry greyscale photo of a {} on black",
    "greyscale blurred {} on black.",
    "grey low resolution {} on a black background",
)


def pixels(split: Split, chosen: Sequence[int]) -> Tensor:
    """Decode some images of a split: ``(n, 3, h, w)`` uint8."""
    images = [decode(split.source.content(int(i))) for i in chosen]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


def cache_fashion(work: Path, count: int = 3000) -> None:
    """Cache the teacher's features of some test and few-shot images of Fashion-MNIST."""
    target = work / "fashion.npz"
    if target.exists():
        return
    teacher, splits, saved = load_teacher(), read_fashion_mnist(), {}
    assert splits.test is not None  # noqa: S101 - Fashion-MNIST has one
    shots = np.concatenate([few_shot(splits.train.labels, 16, seed) for seed in range(3)])
    for name, split, chosen in (
        ("t10k", splits.test, np.arange(count)),
        ("train", splits.train, shots),
    ):
        batches = pixels(split, chosen.tolist()).split(32)
        saved[name] = torch.cat([features(teacher, batch) for batch in batches]).numpy()
        saved[f"{name}_labels"] = split.labels[chosen]
    np.savez(target, **saved)


def accuracy(images: Tensor, labels: Tensor, classes: Tensor) -> float:
    """Return the share of images ``(n, d)`` whose nearest class vector ``(c, d)`` is their own."""
    scores = F.normalize(images, dim=1) @ F.normalize(classes, dim=1).T
    return float((scores.argmax(dim=1) == labels).float().mean())


@torch.inference_mode()
def probe(model: CLIP, projection: nn.Module, data: Path, work: Path) -> dict[str, float]:
    """Measure zero-shot accuracy of projected teacher features, in per cent."""
    names = [n.split(", ")[0] for n in class_names(data).values()]
    _, labels = load_split(work, "val")
    images = projection(torch.from_numpy(np.load(work / "val_features.npy")).float())
    vectors = text_vectors(model, [f"a photo of a {n}." for n in names])
    old = labels < 200 - UNSEEN
    figures = {
        "trained": accuracy(images[old], labels[old], vectors[:-UNSEEN]),
        "unseen": accuracy(images[~old], labels[~old] - 150, vectors[-UNSEEN:]),
    }
    saved = np.load(work / "fashion.npz")
    clothes, kinds = torch.from_numpy(saved["t10k"]).float(), torch.from_numpy(saved["t10k_labels"])
    for i, template in enumerate(("a photo of a {}.", *STEERED)):
        vectors = text_vectors(model, [template.format(n) for n in CLASSES])
        figures[f"fashion_{i}"] = accuracy(projection(clothes), kinds, vectors)
    return {name: round(100 * value, 1) for name, value in figures.items()}
