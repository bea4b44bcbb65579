"""What exported graphs are measured on: a CLIP, its class vectors, images and torch's answers."""

from typing import Any

import onnx
import open_clip
import torch
from torch import Tensor

from export.fold.constants import Constants
from export.fold.load import RealImages, real_images
from export.fold.types import Logits, Pictures
from export.graph.fuse import fuse
from export.parity.check import reference_logits, run_graph
from export.parity.compare import Parity, compare
from export.precision import Recipe, rewrite_to
from export.runtime.providers import CPU
from export.runtime.session import Session, start_trusted
from fedprompt.backbone.clip import FrozenClip
from fedprompt.backbone.load import load_backbone
from fedprompt.data.fashion_mnist import CLASSES
from fedprompt.data.preprocess import Preprocessing
from fedprompt.prompts.zero_shot import zero_shot_vectors
from fedprompt.settings.backbone import BackboneConfig
from fedprompt.settings.data import DataConfig


class Subject:
    """Hold a CLIP with the class vectors of Fashion-MNIST and ``count`` of its test images.

    Where it was never trained, no accuracy is measured.
    """

    def __init__(self, clip: FrozenClip, count: int, *, trained: bool = True) -> None:
        self.clip = clip
        vectors = zero_shot_vectors(clip, CLASSES, DataConfig().template)
        self.constants = Constants(class_vectors=vectors.detach().numpy())
        self.real: RealImages = real_images({}, count, clip.preprocessing, CLASSES)
        self.labels = self.real.labels if trained else None
        self.expected: Logits = reference_logits(clip, self.constants, self.real.pictures)

    @property
    def joint(self) -> int:
        """Return the width of a class vector."""
        return int(self.constants.class_vectors.shape[1])

    def graph(self, recipe: Recipe, constants: Constants | None = None) -> onnx.ModelProto:
        """Return the classifier as fedprompt exports it."""
        plain = fuse(self.clip, constants or self.constants, recipe.flavour)
        return rewrite_to(plain, recipe.rewrite, self.real.calibration)

    def floats(self, images: Pictures) -> Tensor:
        """Return images as a tower takes them: normalised, channels first."""
        return self.clip.normalise(torch.from_numpy(images)).contiguous()

    def parity(self, session: Session, precision: str) -> Parity:
        """Compare a session's answers with torch's."""
        found = run_graph(session, self.real.pictures)
        return compare(found, self.expected, precision, self.labels)


def open_session(model: onnx.ModelProto) -> Any:
    """Return ONNX Runtime's own session on one thread of the CPU; the graph was made here."""
    return start_trusted(model.SerializeToString(), [CPU], threads=1)


def embedded_clip() -> FrozenClip:
    """Return the embedded CLIP."""
    return load_backbone(BackboneConfig(name="embedded", device="cpu"))


def random_clip(name: str, size: int = 224) -> FrozenClip:
    """Return open_clip's architecture of a name with random weights: only its speed means much."""
    torch.manual_seed(0)
    model = open_clip.create_model(name, force_image_size=size).eval()
    return FrozenClip(model, open_clip.get_tokenizer(name), Preprocessing(size=size))
