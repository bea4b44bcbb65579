"""What an answer costs against the images of a batch, the classes and the pixels of an image."""

from collections.abc import Mapping
from functools import partial

import numpy as np
import numpy.typing as npt

from benchmarks import peers
from benchmarks.inference_speed import Figures, figures, graph_runs, open_sessions, texts
from benchmarks.local_step import names
from benchmarks.pairs import Run, Times, in_turn, milliseconds, ratio
from benchmarks.subject import Subject, random_clip
from export.fold.constants import Constants

PRECISIONS = ("fp32", "int8")
KINDS = ("eager", *PRECISIONS)
BATCHES = (1, 2, 4, 8, 16, 32)
CLASSES = (10, 100, 1_000, 10_000)
TEXTS = (10, 100)  # classes whose texts are encoded at every call
SIZES = (224, 336, 448)  # pixels


def against_batch(subject: Subject, seconds: float) -> Figures:
    """Measure batches of several sizes; what one image of a batch costs is told."""
    rival = peers.eager(subject.clip, subject.constants)
    sessions = open_sessions(subject, PRECISIONS)
    repeats = -(-max(BATCHES) // len(subject.real.pictures))
    pictures = np.concatenate([subject.real.pictures] * repeats)
    runs: dict[str, Run] = {}
    for batch in BATCHES:
        images = pictures[:batch]
        runs[f"eager_{batch}"] = partial(rival, subject.floats(images))
        runs |= {f"{n}_{batch}": run for n, run in graph_runs(sessions, images).items()}
    return _costs("batch", BATCHES, in_turn(runs, seconds))


def against_classes(subject: Subject, seconds: float) -> Figures:
    """Measure one image over more and more classes, whose vectors are random."""
    image = subject.real.pictures[:1]
    given = subject.floats(image)
    runs: dict[str, Run] = {}
    for count in CLASSES:
        constants = Constants(class_vectors=unit_vectors(count, subject.joint))
        runs[f"eager_{count}"] = partial(peers.eager(subject.clip, constants), given)
        opened = open_sessions(subject, PRECISIONS, constants)
        runs |= {f"{n}_{count}": run for n, run in graph_runs(opened, image).items()}
    for count in TEXTS:
        peer = peers.text_at_every_call(subject.clip, texts(names(count)))
        runs[f"text_at_every_call_{count}"] = partial(peer, given)
    times = in_turn(runs, seconds)
    found = _costs("classes", CLASSES, times)
    for count in TEXTS:
        own = ratio(times[f"eager_{count}"], times[f"text_at_every_call_{count}"])
        found |= figures(f"classes_{count}", {"text_at_every_call": own})
    return found


def against_size(name: str, seconds: float) -> Figures:
    """Measure one image of several sizes, each with a random tower of that size."""
    runs: dict[str, Run] = {}
    for size in SIZES:
        subject = Subject(random_clip(name, size), 1)
        image = subject.real.pictures
        rival = peers.eager(subject.clip, subject.constants)
        runs[f"eager_{size}"] = partial(rival, subject.floats(image))
        opened = open_sessions(subject, PRECISIONS)
        runs |= {f"{n}_{size}": run for n, run in graph_runs(opened, image).items()}
    return _costs("size", SIZES, in_turn(runs, seconds))


def unit_vectors(count: int, width: int) -> npt.NDArray[np.float32]:
    """Return random vectors of length one [count width]."""
    vectors = np.random.default_rng(0).standard_normal((count, width)).astype(np.float32)
    unit: npt.NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def _costs(what: str, values: tuple[int, ...], times: Times) -> Figures:
    """Return speeds against eager at each value, and times over those at the least value."""
    found: Figures = {f"{what}_rounds": len(times[f"eager_{values[0]}"])}
    for value in values:
        found |= _at(f"{what}_{value}", {kind: times[f"{kind}_{value}"] for kind in KINDS})
        for kind in KINDS:
            longer = ratio(times[f"{kind}_{value}"], times[f"{kind}_{values[0]}"])
            found |= figures(f"{what}_{value}", {kind: longer}, f"vs_{values[0]}")
    return found


def _at(prefix: str, times: Mapping[str, list[float]]) -> Figures:
    found: Figures = {f"{prefix}_{kind}_ms": milliseconds(times[kind]) for kind in KINDS}
    faster = {kind: ratio(times["eager"], times[kind]) for kind in PRECISIONS}
    return found | figures(prefix, faster)
