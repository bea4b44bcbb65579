"""Measure how fast a classifier file answers on this machine. No torch here."""

import io
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from export.parity.compare import probe_images
from export.runtime.providers import onnx_runtime
from fedprompt.errors import ConfigError

if TYPE_CHECKING:
    from export.runtime import Classifier, OpenClassifier

JPEG_SIDE = 512  # pixels; of the pictures that are decoded
_LEAST_CALLS = 5
_PERCENTILES = (50, 90, 99)


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How fast calls of one kind are.

    Attributes
    ----------
    source
        ``images``: uint8, decoded and resized, to logits. ``jpeg``: bytes of `JPEG_SIDE` square
        pictures to ranked classes.
    batch
        Images a call.
    threads
        Of ONNX Runtime on the CPU; 0 is its own choice.
    calls
        How many were timed.
    images_per_second
        Over all of them, one call after the other.
    p50_ms, p90_ms, p99_ms
        Time of a call, in milliseconds: half, nine tenths and 99 % of the calls took less.
    """

    source: str
    batch: int
    threads: int
    calls: int
    images_per_second: float
    p50_ms: float
    p90_ms: float
    p99_ms: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def measure(
    classifier: "Classifier | OpenClassifier", *, batch: int, seconds: float, threads: int = 0
) -> list[Timing]:
    """Time a classifier from images in memory, then from JPEG bytes.

    Parameters
    ----------
    classifier
        On the provider and with the threads to be measured.
    batch
        Images a call.
    seconds
        Of timed calls, for each of the two; at least five calls are made.
    threads
        The classifier's, for the report.

    Raises
    ------
    ConfigError
        A number is out of range.
    """
    if batch < 1 or seconds <= 0:
        raise ConfigError(f"batch = {batch} and seconds = {seconds}; expected both above 0")
    images = probe_images(0, batch, classifier.metadata.preprocessing.size)
    files = [_jpeg(pixels) for pixels in probe_images(0, batch, JPEG_SIDE)]
    ways: dict[str, Callable[[], object]] = {
        "images": lambda: classifier.logits(images),
        "jpeg": lambda: classifier.predict(files, batch_size=batch),
    }
    classifier.warm_up(batch)
    return [
        _summary(source, batch, threads, _times(call, seconds)) for source, call in ways.items()
    ]


def machine() -> dict[str, Any]:
    """Describe the machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": cores,
        "onnxruntime": onnx_runtime().__version__,
    }


def _times(call: Callable[[], object], seconds: float) -> npt.NDArray[np.float64]:
    """Return how long each call took, in seconds; the first two are not counted."""
    times: list[float] = []
    for _ in range(2):
        call()
    end = time.perf_counter() + seconds
    while len(times) < _LEAST_CALLS or time.perf_counter() < end:
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return np.array(times)


def _summary(source: str, batch: int, threads: int, times: npt.NDArray[np.float64]) -> Timing:
    p50, p90, p99 = (float(ms) for ms in np.percentile(times * 1e3, _PERCENTILES))
    return Timing(
        source=source,
        batch=batch,
        threads=threads,
        calls=len(times),
        images_per_second=batch * len(times) / float(times.sum()),
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
    )


def _jpeg(pixels: npt.NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _processor() -> str:
    """Return the processor's name as Linux tells it, or what Python knows elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"
