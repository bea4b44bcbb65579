"""Fuse, rewrite, measure, refuse or write: how a classifier file is made."""

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx

from export.fold.constants import Constants
from export.fold.load import RealImages, fold
from export.graph.builder import OPSET, serialise
from export.graph.fuse import flavour_of, fuse
from export.parity.check import SEED, ConversionStep, Measurement, ParityCheck
from export.parity.compare import Parity, Probes
from export.precision import FP32, Recipe, rewrite_to
from export.runtime.metadata import GraphMetadata, without_path
from export.targets import Write, write_file
from fedprompt.artefact import Artefact
from fedprompt.backbone.clip import FrozenClip
from fedprompt.errors import GraphError


@dataclass(frozen=True, kw_only=True)
class Content:
    """What a classifier file is made of.

    Attributes
    ----------
    clip, constants
        What is fused: see `export.graph.fuse.fuse`.
    classes
        Names, in the order of the logits.
    artefact_sha256
        Identity of the prompt.
    white_level
        Of 16-bit grey, as the prompt's images were decoded (``data.white_level``).
    """

    clip: FrozenClip
    constants: Constants
    classes: tuple[str, ...]
    artefact_sha256: str = ""
    white_level: int = 0

    @classmethod
    def of(cls, artefact: Artefact, clip: FrozenClip) -> "Content":
        """Return what an artefact's classifier is made of; see `export.fold.load.fold`."""
        return cls(
            clip=clip,
            constants=fold(artefact, clip),
            classes=tuple(artefact.metadata["classes"]),
            artefact_sha256=artefact.sha256,
            white_level=int(artefact.metadata.get("white_level", 0)),
        )


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """A classifier's bytes, what they say of themselves, and how far they lie from torch.

    Attributes
    ----------
    data
        Of the ONNX file.
    nodes
        Operators.
    metadata
        The file's own.
    parity
        Of real images; None where there were none.
    probes
        Parity of the probes.
    steps
        What each step from torch to the file cost and gained.
    forced
        The bounds are broken and the file was made all the same.
    """

    data: bytes
    nodes: int
    metadata: GraphMetadata
    parity: Parity | None
    probes: Parity
    steps: tuple[ConversionStep, ...]
    forced: bool


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written.

    Attributes
    ----------
    place
        The file or folder.
    path
        The classifier: ``place``, or a file in it.
    conversion
        How it was made.
    note
        A line for people, about the folder.
    class_vector_difference
        Largest difference of a class vector's number from torch's; of a bundle only.
    """

    place: Path
    path: Path
    conversion: Conversion
    note: str = ""
    class_vector_difference: float | None = None

    @property
    def is_bundle(self) -> bool:
        """Whether classes can be added where it is deployed."""
        return self.class_vector_difference is not None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        made = self.conversion
        report = {
            "output": str(self.place if self.is_bundle else self.path),
            "bytes": len(made.data),
            "nodes": made.nodes,
            "flavour": made.metadata.flavour,
            "precision": made.metadata.precision,
            "parity": None if made.parity is None else made.parity.to_dict(),
            "probes": made.probes.to_dict(),
            "ladder": [step.to_dict() for step in made.steps],
            "forced": made.forced,
        }
        if self.is_bundle:
            report["class_vectors_largest"] = self.class_vector_difference
        return report

    def __str__(self) -> str:
        made = self.conversion
        real = made.parity or "no real images were compared: give --data"
        lines = [
            f"wrote {self.path}: {len(made.data) / 1e6:.1f} MB, {made.nodes} operators, "
            f"{made.metadata.flavour}, {made.metadata.precision}",
            f"against torch, real images: {real}",
            f"against torch, stored probes: {made.probes}",
            *(f"step: {step}" for step in made.steps),
        ]
        if made.parity and made.parity.coarse:
            lines.append(
                f"{made.parity.images} labelled images cannot show the loss of a point of accuracy;"
                " give more with --data"
            )
        if made.forced:
            lines.append("the bounds are broken and the file was forced; its metadata says so")
        if self.class_vector_difference is not None:
            lines.append(
                "against torch, class vectors: largest difference "
                f"{self.class_vector_difference:.3g}"
            )
        return "\n".join([*lines, self.note] if self.note else lines)


def export_classifier(
    place: Path,
    content: Content,
    images: RealImages,
    recipe: Recipe = FP32,
    *,
    write: Write = write_file,
    force: bool = False,
) -> Exported:
    """Write one classifier that answers as torch does, or nothing.

    Parameters
    ----------
    place
        File or folder; nothing is written there before the graph is measured.
    content, images, recipe, force
        See `convert`.
    write
        Of a target: see `export.targets.Target`.

    Raises
    ------
    StorageError
        The place cannot be written.
    GraphError, ParityError, ProviderError
        See `convert`.
    """
    conversion = convert(content, images, recipe, force=force)
    path, note = write(place, conversion.data)
    return Exported(place=place, path=path, conversion=conversion, note=note)


def convert(
    content: Content, images: RealImages, recipe: Recipe = FP32, *, force: bool = False
) -> Conversion:
    """Return a classifier that answers as torch does.

    Parameters
    ----------
    content
        What is converted.
    images
        Real images for the measurement, and others for short numbers; may be none.
    recipe
        A tower that is no plain VisionTransformer is always portable.
    force
        Return it in spite of a breach of parity, which its metadata records.

    Raises
    ------
    ParityError
        The graph differs from torch by more than its precision's bound.
    GraphError
        The graph is broken, takes one batch size only, or lacks images that its recipe needs.
    ProviderError
        Nothing here runs the precision.
    """
    clip, constants = content.clip, content.constants
    if len(content.classes) != (count := len(constants.class_vectors)):
        raise GraphError(
            f"{len(content.classes)} class names for {count} class vectors; they must match"
        )
    recipe = recipe._replace(flavour=flavour_of(clip, recipe.flavour))
    check = ParityCheck(clip, constants, images.pictures, images.labels)
    plain = fuse(clip, constants, recipe.flavour)
    model = rewrite_to(plain, recipe.rewrite, images.calibration)
    measured = check.measure(model, recipe)
    forced = _require_parity(measured, force=force)
    steps: tuple[ConversionStep, ...] = (measured.step,)
    if recipe.precision != "fp32":
        steps = (check.measure(plain, Recipe(recipe.flavour, "fp32")).step, *steps)
    metadata = GraphMetadata(
        classes=content.classes,
        preprocessing=clip.preprocessing,
        backbone={
            "name": without_path(clip.name),
            "pretrained": Path(clip.pretrained).name,  # as in the artefact: no local path
            "sha256": clip.fingerprint,
        },
        tokenizer_sha256=clip.tokenizer_fingerprint,
        artefact_sha256=content.artefact_sha256,
        folded=constants.describe(),
        flavour=recipe.flavour,
        opset=OPSET,
        logit_scale=clip.logit_scale,
        logit_bias=clip.logit_bias,
        version=version("fedprompt"),
        white_level=content.white_level,
        parity={
            "precision": recipe.precision,
            "images": None if measured.images is None else measured.images.to_dict(),
            "probes": measured.probes.to_dict(),
            "forced": forced,
        },
        probes=Probes(seed=SEED, logits=check.probes),
        ladder=tuple(step.to_dict() for step in steps),
    )
    onnx.helper.set_model_props(model, metadata.to_properties())
    return Conversion(
        data=serialise(model, "the classifier"),
        nodes=len(model.graph.node),
        metadata=metadata,
        parity=measured.images,
        probes=measured.probes,
        steps=steps,
        forced=forced,
    )


def _require_parity(measured: Measurement, *, force: bool) -> bool:
    """Refuse a breach, or return whether there is one that is forced."""
    compared = [parity for parity in (measured.images, measured.probes) if parity is not None]
    if not force:
        for parity in compared:
            parity.require()
    return not all(parity.holds for parity in compared)
