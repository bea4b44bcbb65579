"""Fuse, rewrite, measure, refuse or write: how a classifier file comes into being."""

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx

from export.fold.constants import Constants
from export.fold.types import Pictures
from export.graph.builder import OPSET
from export.graph.fuse import flavour_of, fuse
from export.graph.validate_graph import check_model
from export.parity.check import SEED, Trial
from export.parity.compare import Labels, Parity
from export.parity.conversion_report import Rung
from export.parity.probes import Probes
from export.precision.chain import rewrite_to
from export.runtime.metadata import GraphMetadata, without_path
from export.targets import FP32, Flavour, Recipe
from fedprompt.backbone.clip import FrozenClip
from fedprompt.errors import GraphError
from fedprompt.storage import write_atomic


@dataclass(frozen=True)
class Written:
    """Report a file as written: its parity with torch on real images and on its own probes."""

    path: Path
    size: int  # bytes
    nodes: int
    flavour: Flavour
    precision: str
    parity: Parity | None
    probes: Parity
    ladder: tuple[Rung, ...]
    forced: bool

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "output": str(self.path),
            "bytes": self.size,
            "nodes": self.nodes,
            "flavour": self.flavour,
            "precision": self.precision,
            "parity": None if self.parity is None else self.parity.to_dict(),
            "probes": self.probes.to_dict(),
            "ladder": [rung.to_dict() for rung in self.ladder],
            "forced": self.forced,
        }

    def __str__(self) -> str:
        real = self.parity or "no real images were compared: give --data"
        lines = [
            f"wrote {self.path}: {self.size / 1e6:.1f} MB, {self.nodes} operators, "
            f"{self.flavour}, {self.precision}",
            f"against torch, real images: {real}",
            f"against torch, stored probes: {self.probes}",
        ]
        lines += [f"step: {rung}" for rung in self.ladder]
        if self.parity and self.parity.coarse:
            lines.append(
                f"{self.parity.images} labelled images cannot show the loss of a point of accuracy;"
                " give more with --data"
            )
        if self.forced:
            lines.append("the bounds are broken and the file was forced; its metadata says so")
        return "\n".join(lines)


def write_classifier(
    path: Path,
    clip: FrozenClip,
    constants: Constants,
    classes: tuple[str, ...],
    images: Pictures,
    *,
    artefact_sha256: str,
    recipe: Recipe = FP32,
    labels: Labels | None = None,
    calibration: Pictures | None = None,
    white_level: int = 0,
    force: bool = False,
) -> Written:
    """Write one ONNX file that answers as torch does, or nothing.

    Parameters
    ----------
    path
        Of the file; replaced whole or not at all.
    clip, constants
        What is folded: see `export.graph.fuse.fuse`.
    classes
        Names, in the order of the logits.
    images
        Real images for the measurement, uint8 [images size size 3]; may be none.
    artefact_sha256
        Identity of the prompt.
    recipe
        Of `export.targets`. A tower that is no plain VisionTransformer is always portable.
    labels
        Of the images, int64 [images], as numbers of classes; None where they are not known.
    calibration
        Other real images, which short numbers are fitted to.
    white_level
        Of 16-bit grey, as the prompt's images were decoded (``data.white_level``).
    force
        Write in spite of a breach of parity, and record it.

    Raises
    ------
    ParityError
        The graph differs from torch by more than its precision's bound.
    GraphError
        The graph is broken, takes one batch size only, or lacks images that its recipe needs.
    ProviderError
        Nothing here runs the precision.
    """
    if len(classes) != (count := len(constants.class_vectors)):
        raise GraphError(f"{len(classes)} class names for {count} class vectors; they must match")
    flavour, precision = flavour_of(clip, recipe.flavour), recipe.precision
    trial = Trial(clip, constants, images, labels)
    plain = fuse(clip, constants, flavour)
    model = rewrite_to(plain, recipe.rewrite, images[:0] if calibration is None else calibration)
    parity, probes, last = trial.measure(model, recipe._replace(flavour=flavour))
    forced = _allow([p for p in (parity, probes) if p is not None], force=force)
    ladder: tuple[Rung, ...] = (last,)
    if precision != "fp32":
        ladder = (trial.measure(plain, Recipe(flavour, "fp32"))[2], last)
    metadata = GraphMetadata(
        classes=classes,
        preprocessing=clip.preprocessing,
        backbone={
            "name": without_path(clip.name),
            "pretrained": Path(clip.pretrained).name,  # as in the artefact: no local path
            "sha256": clip.fingerprint,
        },
        tokenizer_sha256=clip.tokenizer_fingerprint,
        artefact_sha256=artefact_sha256,
        folded=constants.describe(),
        flavour=flavour,
        opset=OPSET,
        logit_scale=clip.logit_scale,
        logit_bias=clip.logit_bias,
        version=version("fedprompt"),
        white_level=white_level,
        parity=_record(precision, parity, probes, forced=forced),
        probes=Probes(seed=SEED, logits=trial.probes),
        ladder=tuple(rung.to_dict() for rung in ladder),
    )
    onnx.helper.set_model_props(model, metadata.to_properties())
    check_model(model, str(path))
    data = model.SerializeToString()
    write_atomic(path, data)
    nodes = len(model.graph.node)
    return Written(path, len(data), nodes, flavour, precision, parity, probes, ladder, forced)


def _allow(measured: list[Parity], *, force: bool) -> bool:
    """Refuse a breach, or say that it was forced."""
    if not force:
        for parity in measured:
            parity.require()
    return not all(parity.holds for parity in measured)


def _record(
    precision: str, parity: Parity | None, probes: Parity, *, forced: bool
) -> dict[str, Any]:
    return {
        "precision": precision,
        "images": None if parity is None else parity.to_dict(),
        "probes": probes.to_dict(),
        "forced": forced,
    }
