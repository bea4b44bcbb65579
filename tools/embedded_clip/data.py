"""Read Tiny-ImageNet's tar shards once and keep them as uint8 arrays."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

UNSEEN = 50
"""How many classes, the last ones in the order of the class file, are never trained on."""


def class_names(data: Path) -> dict[str, str]:
    """Read WordNet id -> synonyms, in the order that numbers the classes."""
    names: dict[str, str] = json.loads((data / "tiny-imagenet-classes.json").read_text())
    return names


def decode(data: Path, work: Path) -> None:
    """Decode every shard to ``work/{train,val}_{images,labels}.npy``.

    Images are ``(n, 64, 64, 3)`` uint8; labels are positions in the class file. The order is the
    shards' own, so that it is the same on every machine.
    """
    number = {wnid: i for i, wnid in enumerate(class_names(data))}
    work.mkdir(parents=True, exist_ok=True)
    for split in ("train", "val"):
        if (work / f"{split}_labels.npy").exists():
            continue
        images, labels = [], []
        for shard in sorted(data.glob(f"tiny-imagenet-{split}*.tar")):
            with tarfile.open(shard) as tar:
                for member in tar:
                    stream = tar.extractfile(member)
                    if stream is None:
                        continue
                    picture = Image.open(io.BytesIO(stream.read())).convert("RGB")
                    images.append(np.asarray(picture, dtype=np.uint8))
                    labels.append(number[member.name.split("/")[1]])
        np.save(work / f"{split}_images.npy", np.stack(images))
        np.save(work / f"{split}_labels.npy", np.asarray(labels, dtype=np.int64))


def load_split(work: Path, split: str) -> tuple[Tensor, Tensor]:
    """Load the images ``(n, 3, 64, 64)`` uint8 and labels ``(n,)`` of ``train`` or ``val``."""
    images = torch.from_numpy(np.load(work / f"{split}_images.npy"))
    labels = torch.from_numpy(np.load(work / f"{split}_labels.npy"))
    return images.permute(0, 3, 1, 2).contiguous(), labels


def trained_only(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Keep the images of the classes that may be trained on."""
    keep = labels < 200 - UNSEEN
    return images[keep], labels[keep]
