"""What else classifies with a CLIP: each way with the same weights and class names.

All take float images [batch 3 size size], resized and normalised before the clock runs, and give
logits [batch classes]. They have the shape of what a library does, written anew here; no library is
called but torch and open_clip, and no weights are taken from anywhere.
"""

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.subject import open_session
from export.fold.constants import Constants
from fedprompt.backbone.clip import FrozenClip
from fedprompt.backbone.image_tower import encode_images

Logits = npt.NDArray[np.float32]
Peer = Callable[[Tensor], Logits]

IMAGES, TOKENS, LOGITS, FEATURES = "images", "tokens", "logits", "features"
EXAMPLES = 3  # a batch of one would be taken for a constant


class CachedClasses(nn.Module):
    """Compare open_clip's image features with class vectors that were computed before."""

    def __init__(self, clip: FrozenClip, constants: Constants) -> None:
        super().__init__()
        self.visual, self.prompts = clip.model.visual, constants.prompts(clip.device)
        self.classes: Tensor
        self.register_buffer("classes", torch.from_numpy(constants.class_vectors).T.contiguous())
        self.scale, self.bias = clip.logit_scale, clip.logit_bias

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [batch classes] of images [batch 3 size size]."""
        features = F.normalize(encode_images(self.visual, images, self.prompts), dim=-1)
        return self.scale * features @ self.classes + self.bias


class TextAtEveryCall(nn.Module):
    """Encode the images and the texts of all classes, as Hugging Face's CLIPModel does."""

    def __init__(self, clip: FrozenClip) -> None:
        super().__init__()
        self.model, self.scale, self.bias = clip.model, clip.logit_scale, clip.logit_bias

    def forward(self, images: Tensor, tokens: Tensor) -> Tensor:
        """Return logits [batch classes] of images and token ids [classes length]."""
        features = F.normalize(self.model.encode_image(images), dim=-1)
        classes = F.normalize(self.model.encode_text(tokens), dim=-1)
        return self.scale * features @ classes.T + self.bias


def eager(clip: FrozenClip, constants: Constants) -> Peer:
    """Return open_clip in torch's eager mode, its class vectors cached: the reference of all."""
    return _in_torch(CachedClasses(clip, constants).eval())


def compiled(clip: FrozenClip, constants: Constants) -> Peer:
    """Return the same behind torch.compile, its weights frozen into the code."""
    torch._dynamo.reset()
    module = CachedClasses(clip, constants).eval()
    return _in_torch(torch.compile(module, dynamic=False, options={"freezing": True}))


def _in_torch(module: Any) -> Peer:
    def classify(images: Tensor) -> Logits:
        with torch.no_grad():
            found: Logits = module(images).numpy()
            return found

    return classify


def exported(clip: FrozenClip, constants: Constants) -> Peer:
    """Return the same as torch.onnx.export writes it, in ONNX Runtime."""
    module = CachedClasses(clip, constants).eval()
    session = open_session(export(module, {IMAGES: _example(clip)}, LOGITS))
    return lambda images: np.asarray(session.run([LOGITS], {IMAGES: images.numpy()})[0])


def text_at_every_call(clip: FrozenClip, texts: list[str]) -> Peer:
    """Return a whole CLIP in one graph whose inputs are images and token ids."""
    tokens = clip.tokenize(texts)
    example = {IMAGES: _example(clip), TOKENS: tokens[:EXAMPLES]}
    session = open_session(export(TextAtEveryCall(clip).eval(), example, LOGITS))
    given = {TOKENS: tokens.numpy()}
    return lambda images: np.asarray(session.run([LOGITS], {IMAGES: images.numpy(), **given})[0])


def two_graphs(clip: FrozenClip, constants: Constants) -> Peer:
    """Return an image graph with the comparison in numpy; the text graph ran before."""
    session = open_session(export(clip.model.visual, {IMAGES: _example(clip)}, FEATURES))
    classes = constants.class_vectors

    def classify(images: Tensor) -> Logits:
        features = session.run([FEATURES], {IMAGES: images.numpy()})[0]
        unit = features / np.linalg.norm(features, axis=1, keepdims=True)
        found: Logits = np.float32(clip.logit_scale) * unit @ classes.T + np.float32(
            clip.logit_bias
        )
        return found

    return classify


def export(module: nn.Module, example: dict[str, Tensor], output: str) -> onnx.ModelProto:
    """Return what torch.onnx.export makes of a module, any number of rows in each input."""
    rows = {name: {0: torch.export.Dim(f"{name}_rows", min=1, max=1 << 16)} for name in example}
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            module,
            tuple(example.values()),
            dynamo=True,
            input_names=list(example),
            output_names=[output],
            dynamic_shapes=tuple(rows.values()),
            external_data=False,
            verbose=False,
        )
    assert program is not None
    return program.model_proto


def _example(clip: FrozenClip) -> Tensor:
    size = clip.preprocessing.size
    return torch.zeros(EXAMPLES, 3, size, size)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's progress and deprecation notes; errors still raise."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
