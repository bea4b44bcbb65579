"""Fuse, measure, refuse or write: the order in which a classifier file comes into being."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from export.fuse import Flavour, flavour_of, fuse
from export.graph import OPSET
from export.metadata import GraphMetadata
from export.parity import Parity, compare
from export.probes import COUNT, Probes, probe_images
from export.reference import reference_logits
from export.runtime.providers import CPU
from export.runtime.session import start
from export.structure import check_model
from export.types import Answers, ClassVectors, Pictures
from fedprompt.backbone.clip import FrozenClip
from fedprompt.errors import GraphError
from fedprompt.storage import write_atomic

_BATCHES = (1, 2, 5)  # an exporter that froze the batch fails at one of them
_SEED = 0  # of the probes


@dataclass(frozen=True)
class Written:
    """Report a file as written: its parity with torch on real images and on its own probes."""

    path: Path
    size: int  # bytes
    nodes: int
    flavour: Flavour
    parity: Parity | None
    probes: Parity
    forced: bool


def write_classifier(
    path: Path,
    clip: FrozenClip,
    class_vectors: ClassVectors,
    classes: tuple[str, ...],
    images: Pictures,
    *,
    artefact_sha256: str,
    flavour: Flavour = "ort",
    force: bool = False,
) -> Written:
    """Write one ONNX file that answers as torch does, or nothing.

    Parameters
    ----------
    path
        Of the file; replaced whole or not at all.
    clip, class_vectors
        What is folded: see `export.fuse.fuse`.
    classes
        Names, in the order of the class vectors.
    images
        Real images for the measurement, uint8 [images size size 3]; may be none.
    artefact_sha256
        Identity of the prompt.
    flavour
        See `export.fuse.fuse`.
    force
        Write in spite of a breach of parity, and record it.

    Raises
    ------
    ParityError
        The graph differs from torch by more than its bound.
    GraphError
        The graph is broken, or takes one batch size only.
    """
    if len(classes) != len(class_vectors):
        raise GraphError(
            f"{len(classes)} class names for {len(class_vectors)} class vectors; they must match"
        )
    flavour = flavour_of(clip, flavour)
    model = fuse(clip, class_vectors, flavour)
    pictures = probe_images(_SEED, COUNT, clip.preprocessing.size)
    expected = reference_logits(clip, class_vectors, pictures)
    found = _answers(model, np.concatenate([pictures, images]))
    probes, parity = compare(found[:COUNT], expected), None
    if len(images):
        parity = compare(found[COUNT:], reference_logits(clip, class_vectors, images))
    forced = _allow([p for p in (parity, probes) if p is not None], force=force)
    metadata = GraphMetadata(
        classes=classes,
        preprocessing=clip.preprocessing,
        backbone={
            "name": clip.name,
            "pretrained": Path(clip.pretrained).name,  # as in the artefact: no local path
            "sha256": clip.fingerprint,
        },
        tokenizer_sha256=clip.tokenizer_fingerprint,
        artefact_sha256=artefact_sha256,
        flavour=flavour,
        opset=OPSET,
        logit_scale=clip.logit_scale,
        logit_bias=clip.logit_bias,
        version=version("fedprompt"),
        parity=_record(parity, probes, forced=forced),
        probes=Probes(seed=_SEED, logits=expected),
    )
    onnx.helper.set_model_props(model, metadata.to_properties())
    check_model(model, str(path))
    data = model.SerializeToString()
    write_atomic(path, data)
    return Written(path, len(data), len(model.graph.node), flavour, parity, probes, forced)


def _allow(measured: list[Parity], *, force: bool) -> bool:
    """Refuse a breach, or say that it was forced."""
    if not force:
        for parity in measured:
            parity.require()
    return not all(parity.holds for parity in measured)


def _record(parity: Parity | None, probes: Parity, *, forced: bool) -> dict[str, Any]:
    return {
        "precision": "fp32",
        "images": None if parity is None else parity.to_dict(),
        "probes": probes.to_dict(),
        "forced": forced,
    }


def _answers(model: onnx.ModelProto, images: Pictures) -> Answers:
    """Return the graph's logits, asked in batches of several sizes."""
    session = start(model.SerializeToString(), [CPU])
    try:
        parts = [session.run(["logits"], {"images": part})[0] for part in _mixed_batches(images)]
    except Exception as error:  # ONNX Runtime raises a dozen unrelated types
        raise GraphError(f"the graph fails on some batch size: {error}") from None
    return np.concatenate(parts)


def _mixed_batches(images: Pictures) -> Iterator[Pictures]:
    begin = 0
    sizes = iter(_BATCHES)
    while begin < len(images):
        size = next(sizes, 16)
        yield images[begin : begin + size]
        begin += size
