"""A prompted CLIP: a host's tokens in the frozen towers, trained by an objective.

The one class behind every host: what differs between CoOp, VPT, MaPLe ... is their host alone.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from fedprompt.backbone.class_encoder import Speedups
from fedprompt.backbone.clip import FrozenClip
from fedprompt.backbone.encoded import Encoded, EncodedImages
from fedprompt.backbone.precision import tower_precision
from fedprompt.backbone.prompts import ImagePrompts
from fedprompt.errors import PromptError
from fedprompt.prompt_state import PromptState
from fedprompt.prompts.class_texts import ClassTexts
from fedprompt.prompts.density import density_penalty, mean_density
from fedprompt.prompts.forms import describe_form
from fedprompt.prompts.host import Host
from fedprompt.prompts.method import (
    Answer,
    Folded,
    cosine_logits,
    load_module_arrays,
    load_module_buffers,
    module_arrays,
    module_buffers,
    module_leaving,
)
from fedprompt.prompts.objectives import Objective
from fedprompt.prompts.words import Layout
from fedprompt.prompts.zero_shot import diverse_vectors, zero_shot_vectors
from fedprompt.settings.prompt import PromptedConfig
from fedprompt.types import (
    Activations,
    ImageFeatures,
    Labels,
    Logits,
    TextFeatures,
    TextTokens,
    VisualTokens,
)

Found = TypeVar("Found")
AT_ONCE = 256  # images that are scored at a time


class PromptedClip(nn.Module):
    """Tune a host's prompts against a frozen CLIP.

    Parameters
    ----------
    clip
        The frozen CLIP; it is no part of what is trained.
    classes
        Ordered class names.
    template
        Text with ``{}``; what stands behind it follows the class name.
    host
        Owns the prompts.
    objective
        Leaves the gradients of a batch.
    config
        Method and loss terms.
    speedups
        Of the text tower; all by default.
    """

    def __init__(
        self,
        clip: FrozenClip,
        classes: Sequence[str],
        template: str,
        host: Host,
        objective: Objective,
        config: PromptedConfig,
        speedups: Speedups | None = None,
    ) -> None:
        super().__init__()
        self.host: Any = host  # a module, too
        self.objective, self.config = objective, config
        self.first_layer = host.first_layer
        self.scale = clip.logit_scale
        self._clip = (clip,)  # in a tuple: its weights are not this module's
        self._texts = None
        self._zero_shot = partial(zero_shot_vectors, clip, classes, template)
        self._classes = tuple(classes)
        self._fixed: TextFeatures | None = None
        if host.layout:
            self._texts = ClassTexts(clip, classes, template, host.layout, speedups)
        self._most_images, self._image_limit = 0, 0  # seen at a time; 0 = no limit yet

    @property
    def clip(self) -> FrozenClip:
        """Return the frozen CLIP."""
        return self._clip[0]

    @property
    def zero_shot(self) -> TextFeatures:
        """Return the frozen class vectors [classes joint] of the template."""
        if self._fixed is None:
            self._fixed = self._zero_shot()
        return self._fixed

    def diverse_vectors(self, templates: tuple[str, ...]) -> TextFeatures:
        """Return the frozen class vectors [classes joint] of several templates' mean feature."""
        return diverse_vectors(self.clip, self._classes, templates)

    def forward(self, images: Encoded, generator: torch.Generator | None = None) -> Answer:
        """Return logits and features of a batch; with a generator as in training."""
        with tower_precision(images.features.device):
            entering = self.host(generator)
            vectors = self._vectors(entering.text)
            features = self._features(images, entering.visual)
        logits = cosine_logits(features, vectors, self.scale)
        return Answer(logits=logits, features=features, vectors=vectors)

    def backward(self, images: Encoded, labels: Labels, generator: torch.Generator | None) -> float:
        """Add the objective's gradients of a batch and return its mean cross-entropy, nats."""
        return self.objective(self, images, labels, generator)

    def predict(self, images: EncodedImages) -> Logits:
        """Return scale * cos(image, class) [images classes]."""
        return self.answer(images).logits

    @torch.no_grad()
    def answer(self, images: EncodedImages) -> Answer:
        """Return logits and features of all images, some at a time."""
        entering, features = self.host(), images.features
        vectors = self._vectors(entering.text)
        if entering.visual is not None:
            parts = [self._features(images[p], entering.visual) for p in images.parts(AT_ONCE)]
            features = torch.cat([features[:0], *parts])
        logits = cosine_logits(features, vectors, self.scale)
        return Answer(logits=logits, features=features, vectors=vectors)

    def class_vectors(self, generator: torch.Generator | None = None) -> TextFeatures:
        """Return unit class vectors [classes joint]; with a generator, as in training."""
        return self._vectors(self.host(generator).text)

    @property
    def layout(self) -> Layout | None:
        """Return where the text prompt stands; None leaves classes to the template."""
        layout: Layout | None = self.host.layout
        return layout

    @torch.no_grad()
    def text_prompt(self) -> TextTokens | None:
        """Return the text prompt as it stands in class texts; None leaves them to the template."""
        text: TextTokens | None = self.host().text
        return text

    @torch.no_grad()
    def fold(self) -> Folded:
        """Return class vectors and visual prompts, computed by the plain towers."""
        entering = self.host()
        vectors = self._plain_vectors(entering.text)
        return Folded(class_vectors=vectors, visual=self._image_prompts(entering.visual))

    def arrays(self) -> PromptState:
        """Return the host's trained tensors, by name."""
        return module_arrays(self.host)

    def leaving(self) -> PromptState:
        """Return what a site sends: all of them, or of a fresh basis the update alone."""
        return module_leaving(self.host)

    def load_arrays(self, arrays: PromptState) -> None:
        """Take what travelled."""
        load_module_arrays(self.host, arrays)

    def frozen_arrays(self) -> PromptState:
        """Return the host's frozen tensors: starts, and A under a shared basis."""
        return module_buffers(self.host)

    def load_frozen(self, arrays: PromptState) -> None:
        """Take the frozen tensors of an artefact."""
        load_module_buffers(self.host, arrays)

    def halve_chunk(self) -> bool:
        """Encode half as many classes and images at a time; False if one is too many (F31)."""
        classes = self._texts is not None and self._texts.halve_chunk()
        at_once = self._image_limit or self._most_images
        if at_once > 1:
            self._image_limit = at_once // 2
        return classes or at_once > 1

    def penalty(self) -> Tensor:
        """Return DIP's DO and PP of all matrices."""
        return density_penalty(self.host.matrices(), self.config)

    def information_density(self) -> float:
        """Return the mean ID_k of the folded matrices."""
        return mean_density(self.host.matrices(), self.config)

    def describe(self) -> dict[str, Any]:
        """Return method, host, form, rank and the host's own settings."""
        form = describe_form(self.host)
        described = {"method": self.config.method, **self.host.describe(), **form}
        return described | self.config.describe_whose()

    def _vectors(self, tokens: TextTokens | None) -> TextFeatures:
        if self._texts is None or tokens is None:
            return self.zero_shot
        return self._texts.vectors(tokens)

    def _plain_vectors(self, tokens: TextTokens | None) -> TextFeatures:
        if self._texts is None or tokens is None:
            return self.zero_shot
        return self._texts.plain_vectors(tokens)

    def _features(self, images: Encoded, tokens: VisualTokens | None) -> ImageFeatures:
        prompts = self._image_prompts(tokens)
        if prompts is None:
            return images.features
        encode = self.clip.prompted_images
        found = self._in_parts(images, lambda rows: encode(rows, prompts))
        return F.normalize(torch.cat(found), dim=-1)

    def _in_parts(self, images: Encoded, encode: Callable[[Activations], Found]) -> list[Found]:
        """Return what ``encode`` makes of a batch, as much at a time as the memory bears (F31)."""
        if images.rows is None:
            raise PromptError(
                "a host that prompts the image tower needs the images' activations, found features "
                "only; encode them with first_layer"
            )
        self._most_images = max(self._most_images, len(images))
        parts = images.rows.split(self._image_limit or max(1, len(images)))
        if len(parts) > 1 and torch.is_grad_enabled():
            return [checkpoint(encode, rows, use_reentrant=False) for rows in parts]
        return [encode(rows) for rows in parts]

    def _image_prompts(self, tokens: VisualTokens | None) -> ImagePrompts | None:
        if tokens is None or self.first_layer is None:
            return None
        return ImagePrompts(tokens=tokens, first=self.first_layer)
