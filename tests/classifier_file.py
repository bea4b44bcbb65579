"""Classifier files of constants and images at hand, written as `fedprompt export` writes them."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from export.fold.constants import Constants
from export.fold.load import RealImages
from export.precision import FP32, Recipe
from export.targets.classifier import Content, Exported, export_classifier
from fedprompt.backbone.clip import FrozenClip


def write_classifier(
    path: Path,
    clip: FrozenClip,
    constants: Constants,
    classes: tuple[str, ...],
    pictures: npt.NDArray[np.uint8],
    *,
    artefact_sha256: str = "",
    recipe: Recipe = FP32,
    labels: npt.NDArray[np.int64] | None = None,
    calibration: npt.NDArray[np.uint8] | None = None,
    white_level: int = 0,
    force: bool = False,
) -> Exported:
    """Write one ONNX file, compared with torch on some pictures [images size size 3]."""
    content = Content(
        clip=clip,
        constants=constants,
        classes=classes,
        artefact_sha256=artefact_sha256,
        white_level=white_level,
    )
    images = RealImages(
        pictures=pictures,
        labels=labels,
        calibration=pictures[:0] if calibration is None else calibration,
    )
    return export_classifier(path, content, images, recipe, force=force)
