"""Make the training views and run the teacher over them, once.

Copy 0 is the images as they are; copies 1 and 2 are cropped, mirrored and transformed in named
ways; later copies are cropped and mirrored only. Each becomes three files in the work folder:
``copy{k}_images.npy`` uint8 ``(n, 3, 64, 64)``, ``copy{k}_codes.npy`` and ``copy{k}_features.npy``
float16 ``(n, 1280)``. A copy that is there already is not made again.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Generator, Tensor

from tools.embedded_clip.data import load_split, trained_only
from tools.embedded_clip.teacher import features, load_teacher
from tools.embedded_clip.transforms import GROUPS, apply_codes, draw_codes, random_crop

NAMED_COPIES = (1, 2, 5, 6)


def make_view(images: Tensor, copy: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Return the views ``(b, 3, 64, 64)`` uint8 of one copy and their codes ``(b, groups)``."""
    codes = torch.zeros(len(images), len(GROUPS), dtype=torch.long)
    if copy == 0:
        return images, codes
    views = random_crop(images.float(), generator)
    if copy in NAMED_COPIES:
        codes = draw_codes(len(images), generator)
        views = apply_codes(views, codes, generator)
    return views.round().clamp(0, 255).to(torch.uint8), codes


def cache_copy(work: Path, copy: int, seed: int) -> None:
    """Make one copy of all training images and the teacher's features of it."""
    target = work / f"copy{copy}_features.npy"
    if target.exists():
        return
    images, _ = trained_only(*load_split(work, "train"))
    generator = torch.Generator().manual_seed(1000 * seed + copy)
    teacher = load_teacher()
    parts = []
    for batch in images.split(32):
        views, codes = make_view(batch, copy, generator)
        parts.append((views.numpy(), codes.numpy().astype(np.int8), features(teacher, views)))
    np.save(work / f"copy{copy}_images.npy", np.concatenate([p[0] for p in parts]))
    np.save(work / f"copy{copy}_codes.npy", np.concatenate([p[1] for p in parts]))
    np.save(target, torch.cat([p[2] for p in parts]).numpy())


def load_copy(work: Path, copy: int) -> tuple[Tensor, Tensor, Tensor]:
    """Load images (mapped, not read), codes and features of one copy."""
    images = torch.from_numpy(np.load(work / f"copy{copy}_images.npy", mmap_mode="c"))
    codes = torch.from_numpy(np.load(work / f"copy{copy}_codes.npy")).long()
    return images, codes, torch.from_numpy(np.load(work / f"copy{copy}_features.npy"))
