import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import open_clip
import pytest
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

from export.fold.constants import Constants
from export.targets.bundle import export_bundle
from export.targets.classifier import Exported
from fedprompt.backbone.clip import FrozenClip
from fedprompt.data.preprocess import Preprocessing
from tests.classifier_file import write_classifier
from tests.prompts import tuned

TinyClip = Callable[..., FrozenClip]
TEXT = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
VISION = {"image_size": 32, "patch_size": 8, "width": 48, "head_width": 16, "layers": 2}


def make_clip(quick_gelu: bool = False, bias: float | None = None, **vision: Any) -> FrozenClip:
    """Return a CLIP whose every weight, norm and bias differs from its neutral start."""
    torch.manual_seed(0)
    settings = CLIPVisionCfg(**VISION | vision)
    model = CLIP(24, settings, CLIPTextCfg(**TEXT), quick_gelu=quick_gelu, init_logit_bias=bias)
    with torch.no_grad():
        for parameter in model.visual.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    tokenizer = open_clip.SimpleTokenizer(context_length=16)
    size = settings.image_size
    assert isinstance(size, int)
    return FrozenClip(model, tokenizer, Preprocessing(size=size), name="tiny", pretrained="none")


@pytest.fixture(scope="session")
def tiny_clip() -> TinyClip:
    return make_clip


@pytest.fixture(scope="session")
def clip() -> FrozenClip:
    return make_clip()


@pytest.fixture(scope="session")
def class_vectors() -> npt.NDArray[np.float32]:
    vectors = np.random.default_rng(0).standard_normal((5, 24)).astype(np.float32)
    unit: npt.NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


@pytest.fixture(scope="session")
def constants(class_vectors: npt.NDArray[np.float32]) -> Constants:
    return Constants(class_vectors=class_vectors)


@pytest.fixture(scope="session")
def images() -> npt.NDArray[np.uint8]:
    rng = np.random.default_rng(1)
    return rng.integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def written(
    clip: FrozenClip,
    constants: Constants,
    images: npt.NDArray[np.uint8],
    tmp_path_factory: pytest.TempPathFactory,
) -> Exported:
    path = tmp_path_factory.mktemp("graph") / "classifier.onnx"
    classes = ("cat", "dög", "sheep", "cow", "location")
    return write_classifier(path, clip, constants, classes, images, artefact_sha256="a" * 64)


@pytest.fixture
def classifier_file(written: Exported) -> Path:
    return written.path


@pytest.fixture(scope="session")
def exported_bundle(
    clip: FrozenClip, images: npt.NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Return a bundle of dip that no test changes."""
    folder = tmp_path_factory.mktemp("open") / "bundle"
    export_bundle(folder, tuned(clip), clip, images)
    return folder


@pytest.fixture
def bundle(exported_bundle: Path, tmp_path: Path) -> Path:
    """Return a copy of it that a test may change."""
    shutil.copytree(exported_bundle, tmp_path / "bundle")
    return tmp_path / "bundle"
