"""Load what an export needs: the CLIP of an artefact, its constants, real images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from export.fold.constants import Constants
from export.fold.types import Pictures
from export.parity.compare import Labels
from fedprompt.artefact import Artefact
from fedprompt.backbone.clip import FrozenClip
from fedprompt.backbone.fingerprint import superseded
from fedprompt.backbone.load import load_backbone
from fedprompt.data.image_set import ImageSet, Indices
from fedprompt.data.load import load
from fedprompt.data.preprocess import Preprocessing, fit_to_input
from fedprompt.errors import ArtefactError, DataError
from fedprompt.prompts.artefacts import from_artefact
from fedprompt.settings.backbone import BackboneConfig
from fedprompt.settings.data import DataConfig
from fedprompt.settings.section import Scalar, section

_CALIBRATION = 64  # training images


def load_clip(artefact: Artefact, settings: Mapping[str, Scalar]) -> FrozenClip:
    """Return the CLIP that an artefact names; ``backbone.*`` settings say where it lies here.

    Raises
    ------
    BackboneError
        The CLIP cannot be loaded.
    ArtefactError
        It is another CLIP than the prompt was tuned for, or its preprocessing differs.
    """
    named = artefact.metadata["backbone"]
    known = {f"backbone.{key}": str(named[key]) for key in ("name", "pretrained") if key in named}
    clip = load_backbone(section({**known, **settings}, "backbone", BackboneConfig))
    if clip.fingerprint != named["sha256"]:
        raise ArtefactError(
            f"the prompt was tuned for backbone {named.get('name')} {named['sha256'][:16]}…, found "
            f"{clip.name} {clip.fingerprint[:16]}…; "
            + (
                superseded(named["sha256"])
                or "set backbone.name and backbone.pretrained to the same weights"
            )
        )
    if artefact.metadata["preprocessing"] != clip.preprocessing.to_dict():
        raise ArtefactError(
            f"the prompt was tuned with preprocessing {artefact.metadata['preprocessing']}, the "
            f"backbone has {clip.preprocessing.to_dict()}; use the same backbone settings"
        )
    return clip


def fold(artefact: Artefact, clip: FrozenClip) -> Constants:
    """Return what an artefact's prompt folds to, computed by the plain towers.

    Raises
    ------
    PromptError
        The method needs the prompt at every image, so that nothing folds.
    GraphError
        It folds to a part that no graph is written for.
    """
    return Constants.of(from_artefact(artefact, clip).fold())


@dataclass(frozen=True, eq=False)
class RealImages:
    """What a graph is compared with torch on, and fitted to.

    Attributes
    ----------
    pictures
        Test images.
    labels
        Their classes' numbers, int64 [images]; None where the data's classes are not the prompt's.
    calibration
        Training images.
    """

    pictures: Pictures
    labels: Labels | None
    calibration: Pictures


def no_images(pre: Preprocessing) -> RealImages:
    """Return no images at all."""
    none = np.zeros((0, pre.size, pre.size, 3), np.uint8)
    return RealImages(pictures=none, labels=None, calibration=none)


def real_images(
    settings: Mapping[str, Scalar], count: int, pre: Preprocessing, classes: Sequence[str]
) -> RealImages:
    """Return up to ``count`` test images spread over the set, and training images beside them.

    Raises
    ------
    DataError
        The source of the ``data.*`` settings cannot be read or has no test images.
    """
    data = section(settings, "data", DataConfig)
    train, test = load(data)
    if not len(test):
        raise DataError("the source has no test images to compare; raise data.test_share above 0")
    chosen = _spread(len(test), count)
    return RealImages(
        pictures=_fitted(test, chosen, data, pre),
        labels=_labels(test, classes, chosen),
        calibration=_fitted(train, _spread(len(train), _CALIBRATION), data, pre),
    )


def settings_images(
    settings: Mapping[str, Scalar],
    count: int,
    artefact: Artefact,
    clip: FrozenClip,
    *,
    required: bool,
) -> RealImages:
    """Return up to ``count`` images of the settings' source: see `real_images`.

    Unless they are ``required``, there are none where no source is set or where it cannot be read:
    the images of a run need not lie where its prompt is exported.

    Raises
    ------
    DataError
        They are required and cannot be read.
    """
    if "data.source" not in settings:
        return no_images(clip.preprocessing)
    try:
        return real_images(settings, count, clip.preprocessing, artefact.metadata["classes"])
    except DataError:
        if required:
            raise
        return no_images(clip.preprocessing)


def _spread(total: int, count: int) -> Indices:
    return np.linspace(0, total - 1, min(count, total)).astype(np.int64)


def _labels(images: ImageSet, classes: Sequence[str], chosen: Indices) -> Labels | None:
    """Return labels as numbers of the prompt's classes; two of one name are told apart by place."""
    if images.classes == tuple(classes):
        return images.labels[chosen]
    if len(set(classes)) < len(classes) or set(images.classes) != set(classes):
        return None
    return np.array([classes.index(images.classes[i]) for i in images.labels[chosen]], np.int64)


def _fitted(images: ImageSet, chosen: Indices, data: DataConfig, pre: Preprocessing) -> Pictures:
    decoded = (images.pixels(int(index), data.max_pixels) for index in chosen)
    fitted = [fit_to_input(pixels, pre) for pixels in decoded]
    return np.stack(fitted) if fitted else no_images(pre).pictures
