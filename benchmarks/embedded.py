"""Measure the embedded models: ``python -m benchmarks.embedded [--json]``.

Zero-shot and linear probes use Tiny-ImageNet's shards in ``--data`` and Fashion-MNIST; prompts are
tuned with 16 shots a class over three seeds. The last line of ``--json`` is one object.
"""

import io
import json
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import torch
import typer
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from timm.data import ImageNetInfo
from torch import Tensor
from torch.nn import functional as F

from fedprompt.backbone.clip import FrozenClip
from fedprompt.backbone.embedded import load_embedded
from fedprompt.backbone.load import load_backbone
from fedprompt.data.decode import decode
from fedprompt.data.fashion_mnist import CLASSES, read_fashion_mnist
from fedprompt.data.preprocess import fit_to_input
from fedprompt.data.shots import few_shot, stratified
from fedprompt.data.splits import Split
from fedprompt.prompts.build import build_prompt
from fedprompt.settings.backbone import BackboneConfig
from fedprompt.settings.prompt import PromptConfig

TEMPLATE = "a photo of a {}."
UNSEEN = 50  # the last classes, never trained on
SEEDS = (0, 1, 2)
SHOTS = 16
STEPS = 300
RATES = {"coop": 0.01, "dip": 0.03}  # AdamW, cosine
PROBE_IMAGES = 60_000  # of Fashion-MNIST's training images: all
PROBE_SHOTS = 100  # of each unseen class
BATCH = 250

Pictures = list[npt.NDArray[np.uint8]]


def tiny_imagenet(data: Path, pattern: str) -> tuple[Pictures, Tensor]:
    """Decode the shards that match; labels are positions in the class file."""
    number = {wnid: i for i, wnid in enumerate(class_names(data))}
    pictures, labels = [], []
    for shard in sorted(data.glob(pattern)):
        with tarfile.open(shard) as tar:
            for member in tar:
                if stream := tar.extractfile(member):
                    image = Image.open(io.BytesIO(stream.read())).convert("RGB")
                    pictures.append(np.asarray(image, dtype=np.uint8))
                    labels.append(number[member.name.split("/")[1]])
    return pictures, torch.tensor(labels)


def class_names(data: Path) -> dict[str, str]:
    """Map folder names to the first synonym of each class, in order."""
    names = json.loads((data / "tiny-imagenet-classes.json").read_text())
    return {wnid: synonyms.split(", ")[0] for wnid, synonyms in names.items()}


def fashion(split: Split, chosen: npt.NDArray[np.int64]) -> tuple[Pictures, Tensor]:
    """Decode some images of Fashion-MNIST."""
    pictures = [decode(split.source.content(int(i))) for i in chosen]
    return pictures, torch.from_numpy(split.labels[chosen])


@torch.inference_mode()
def encode(clip: FrozenClip, pictures: Pictures) -> Tensor:
    """Return unit image vectors ``(n, joint)``."""
    parts = []
    for start in range(0, len(pictures), BATCH):
        fitted = [fit_to_input(p, clip.preprocessing) for p in pictures[start : start + BATCH]]
        images = clip.normalise(torch.from_numpy(np.stack(fitted)))
        parts.append(F.normalize(clip.encode_image(images), dim=1))
    return torch.cat(parts).clone()


def zero_shot(clip: FrozenClip, images: Tensor, labels: Tensor, names: list[str]) -> float:
    """Return zero-shot top-1 accuracy in per cent."""
    with torch.inference_mode():
        tokens = clip.tokenize([TEMPLATE.format(name) for name in names])
        vectors = F.normalize(clip.encode_text(tokens), dim=1)
    return 100 * float(((images @ vectors.T).argmax(dim=1) == labels).float().mean())


def tiny_zero_shot(
    clip: FrozenClip, images: Tensor, labels: Tensor, names: list[str]
) -> tuple[float, float]:
    """Return accuracy on the trained classes, and on the unseen ones among themselves."""
    first = len(names) - UNSEEN
    old = labels < first
    return (
        zero_shot(clip, images[old], labels[old], names[:first]),
        zero_shot(clip, images[~old], labels[~old] - first, names[first:]),
    )


def linear_probe(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> float:
    """Return the test accuracy, in per cent, of logistic regression on frozen features."""
    scale = StandardScaler().fit(train[0].numpy())
    probe = LogisticRegression(C=1.0, max_iter=1000)
    probe.fit(scale.transform(train[0].numpy()), train[1].numpy())
    return 100 * float(probe.score(scale.transform(test[0].numpy()), test[1].numpy()))


def tuned(clip: FrozenClip, method: str, seed: int, train: tuple[Tensor, Tensor]) -> Tensor:
    """Tune a prompt on image vectors and labels; return the class vectors ``(classes, joint)``."""
    config = PromptConfig.model_validate({"method": method, "seed": seed})
    prompt = build_prompt(config, clip, CLASSES, TEMPLATE)
    optimizer = torch.optim.AdamW(prompt.parameters(), lr=RATES[method], weight_decay=0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(STEPS):
        logits = clip.logit_scale * train[0] @ prompt.class_vectors(generator).T
        loss = F.cross_entropy(logits, train[1]) + prompt.penalty()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return prompt.fold().class_vectors


def fashion_figures(clip: FrozenClip) -> Iterator[dict[str, float]]:
    """Measure zero-shot, what prompts gain, and a linear probe on Fashion-MNIST."""
    splits = read_fashion_mnist()
    assert splits.test is not None
    pictures, test_labels = fashion(splits.test, np.arange(len(splits.test.labels)))
    test = (encode(clip, pictures), test_labels)
    start = zero_shot(clip, *test, list(CLASSES))
    yield {"fashion_zero_shot": start}
    for method in RATES:  # dip with the product's own start
        reached = []
        for seed in SEEDS:
            pictures, labels = fashion(splits.train, few_shot(splits.train.labels, SHOTS, seed))
            vectors = tuned(clip, method, seed, (encode(clip, pictures), labels))
            right = (test[0] @ vectors.T).argmax(dim=1) == test_labels
            reached.append(100 * float(right.float().mean()))
        gains = np.asarray(reached) - start
        yield {
            f"{method}_gain_points": float(gains.mean()),
            f"{method}_gain_spread": float(gains.std(ddof=1)),
        }
    pictures, labels = fashion(splits.train, stratified(splits.train.labels, PROBE_IMAGES, 0))
    yield {"linear_probe_fashion_mnist": linear_probe((encode(clip, pictures), labels), test)}


def costs(clip: FrozenClip) -> dict[str, float]:
    """Measure loading and encoding on this machine, and the size of all assets."""
    start = time.perf_counter()
    load_embedded("embedded")
    loading = time.perf_counter() - start
    random = np.random.default_rng(0)
    pictures = list(random.integers(0, 256, (1_000, 64, 64, 3), dtype=np.uint8))
    start = time.perf_counter()
    encode(clip, pictures)
    assets = Path(__file__).parents[1] / "fedprompt/assets"
    size = sum(file.stat().st_size for file in assets.glob("*.safetensors"))
    return {
        "size_mb": size / 1e6,
        "load_seconds": loading,
        "encode_1000_seconds": time.perf_counter() - start,
    }


def photos(data: Path) -> tuple[Pictures, Tensor, list[str]]:
    """Decode the sample photos; labels are ImageNet's, names their synsets' first ones."""
    info = ImageNetInfo()
    number = {wnid: i for i, wnid in enumerate(info.label_names())}
    names = [info.index_to_description(i).split(", ")[0] for i in range(len(number))]
    pictures, labels = [], []
    with tarfile.open(data / "photos-500.tar") as tar:
        for member in tar:
            if stream := tar.extractfile(member):
                image = Image.open(io.BytesIO(stream.read())).convert("RGB")
                pictures.append(np.asarray(image, dtype=np.uint8))
                labels.append(number[Path(member.name).name.split("_")[0]])
    return pictures, torch.tensor(labels), names


def convolutional(data: Path, names: list[str]) -> Iterator[dict[str, float]]:
    """Measure ``embedded-cnn``: photos at two sizes, Tiny-ImageNet, Fashion-MNIST."""
    pictures, labels, classes = photos(data)
    for name, key in (("embedded-cnn-224", "photos_top1_224"), ("embedded-cnn", "photos_top1")):
        clip = load_backbone(BackboneConfig(name=name))
        yield {key: zero_shot(clip, encode(clip, pictures), labels, classes)}
    pictures, labels = tiny_imagenet(data, "tiny-imagenet-val.tar")
    trained, unseen = tiny_zero_shot(clip, encode(clip, pictures), labels, names)
    yield {"trained_top1": trained, "unseen_top1": unseen}
    yield from fashion_figures(clip)


def vision_transformer(data: Path, names: list[str]) -> Iterator[dict[str, float]]:
    """Measure ``embedded``: its costs, Tiny-ImageNet, a linear probe, Fashion-MNIST."""
    clip = load_backbone(BackboneConfig(name="embedded"))
    yield costs(clip)
    pictures, labels = tiny_imagenet(data, "tiny-imagenet-val.tar")
    images = encode(clip, pictures)
    trained, unseen = tiny_zero_shot(clip, images, labels, names)
    yield {"vit_trained_top1": trained, "vit_unseen_top1": unseen}
    new = labels >= len(names) - UNSEEN
    every, every_label = tiny_imagenet(data, "tiny-imagenet-train-3.tar")
    chosen = few_shot(every_label.numpy(), PROBE_SHOTS, 0)
    shots = (encode(clip, [every[int(i)] for i in chosen]), every_label[chosen])
    yield {"vit_linear_probe_unseen": linear_probe(shots, (images[new], labels[new]))}
    for part in fashion_figures(clip):
        yield {f"vit_{name}": value for name, value in part.items()}


def measure(data: Path, vit: bool) -> Iterator[dict[str, float]]:
    """Measure part after part; figures without a prefix are ``embedded-cnn``'s."""
    names = list(class_names(data).values())
    yield from convolutional(data, names)
    if vit:
        yield from vision_transformer(data, names)


def main(
    data: Annotated[Path, typer.Option(help="folder of the Tiny-ImageNet shards")] = Path(
        "../shared/data"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="end with one JSON object")] = False,
    vit: Annotated[bool, typer.Option(help="measure the ViT, `embedded`, too")] = True,
) -> None:
    """Print the figures of the embedded models."""
    figures: dict[str, float] = {}
    for part in measure(data, vit):
        figures |= part
        for name, value in part.items():
            typer.echo(f"{name:34s} {value:8.2f}")
    if as_json:
        typer.echo(json.dumps({name: round(value, 3) for name, value in figures.items()}))


if __name__ == "__main__":
    typer.run(main)
