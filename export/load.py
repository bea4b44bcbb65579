"""From an artefact folder to what `export.write` folds: the CLIP, class vectors, real images."""

from collections.abc import Mapping

import numpy as np

from export.types import ClassVectors, Pictures
from fedprompt.artefact import Artefact
from fedprompt.backbone.clip import FrozenClip
from fedprompt.backbone.config import BackboneConfig
from fedprompt.backbone.load import load_backbone
from fedprompt.config import Scalar, section
from fedprompt.data.config import DataConfig
from fedprompt.data.decode import decode
from fedprompt.data.load import load
from fedprompt.data.preprocess import Preprocessing, fit_to_input
from fedprompt.errors import ArtefactError, DataError
from fedprompt.prompts.artefacts import from_artefact


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
            f"{clip.name} {clip.fingerprint[:16]}…; set backbone.name and backbone.pretrained to "
            "the same weights"
        )
    if artefact.metadata["preprocessing"] != clip.preprocessing.to_dict():
        raise ArtefactError(
            f"the prompt was tuned with preprocessing {artefact.metadata['preprocessing']}, the "
            f"backbone has {clip.preprocessing.to_dict()}; use the same backbone settings"
        )
    return clip


def fold(artefact: Artefact, clip: FrozenClip) -> ClassVectors:
    """Return the class vectors [classes joint] of an artefact's prompt, from the plain tower."""
    vectors: ClassVectors = from_artefact(artefact, clip).fold().float().cpu().numpy()
    return vectors


def real_images(settings: Mapping[str, Scalar], count: int, pre: Preprocessing) -> Pictures:
    """Return up to ``count`` test images spread over the set: uint8 [images size size 3].

    With a count of 0 nothing is loaded.

    Raises
    ------
    DataError
        The source of the ``data.*`` settings cannot be read or has no test images.
    """
    if count == 0:
        return np.zeros((0, pre.size, pre.size, 3), np.uint8)
    data = section(settings, "data", DataConfig)
    _, test = load(data)
    if not len(test):
        raise DataError("the source has no test images to compare; raise data.test_share above 0")
    chosen = np.linspace(0, len(test) - 1, min(count, len(test))).astype(np.int64)
    contents = (test.content(int(i)) for i in chosen)
    return np.stack([fit_to_input(decode(c, max_pixels=data.max_pixels), pre) for c in contents])
