"""ADAPT (Fed-DPT): a text prompt and a visual token for each domain (arXiv 2310.03103; text).

Domains i = 1 ... D are kinds of pictures: scanners, hands, weathers. Text prompts P_i
[n text_width] give class vectors t_ik of each domain. Visual prompts V [D vision_width], a token a
domain, enter block 0 beside the patches and propagate; in the last block the class token weighs
them. With q its query and k_i the key of token i there,

    w_i = mean over heads of softmax_i(q . k_i / sqrt(head width))      c_k = sum_i w_i t_ik
    logit_k = scale z . c_k / |c_k|        L = 1 - cos(z, c_y) of the true class y

so an image says itself which domains it is of: no label of a domain is needed once it is tuned.

A site is of one domain d. It tunes and sends P_d and V; the server averages P_d over the sites of
domain d, V over all, and never mixes prompts of two domains. The other P_j, j != d, are what the
server sends: they follow the true ones by momentum 0.99 (`server/merge/domains.py`), without
gradient.
Trained and sent: ``text.d`` and ``visual``; 12,800 numbers for ViT-B/16, n = 16 and D = 6 (our
arithmetic). Both take either form.

The objective has no negatives: it draws every class towards the images of all, and a small backbone
may lose its classes on the way (docs/data.md). ``prompt.objective`` = cross-entropy trains the
same prompts against the other classes (ours).

Ours: every P_i starts at the words, as coop's does (``prompt.init`` = random with ``prompt.tokens``
= 16 is the paper's length); t_ik are of length one, and so is their mixture; V stands behind the
patches, where attention does not care. No image's class vectors are ever formed: |c_k|^2 = sum_ij
w_i w_j t_ik . t_jk, from products that are the same for all images.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedprompt.backbone.encoded import Encoded, EncodedImages
from fedprompt.backbone.precision import full_precision, tower_precision
from fedprompt.backbone.prompted_images import PromptedImages
from fedprompt.backbone.prompts import ImagePrompts
from fedprompt.errors import BackboneError, PromptError
from fedprompt.prompt_state import PromptState
from fedprompt.prompts.domain_names import METHOD, domain_of
from fedprompt.prompts.domain_prompts import DomainPrompts
from fedprompt.prompts.method import Answer, Folded
from fedprompt.prompts.prompted import AT_ONCE, PromptedClip
from fedprompt.prompts.recipe import Recipe
from fedprompt.types import (
    DomainVectors,
    DomainWeights,
    ImageFeatures,
    Labels,
    Logits,
    VisualTokens,
)


class Adapt(PromptedClip):
    """Tune a site's domain; score with all of them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        tower = self.clip.prompted_images
        if not isinstance(tower, PromptedImages):
            raise BackboneError(
                f"prompt.method = {METHOD} reads what the class token of the last block attends "
                f"to, which the image tower of {self.clip.name or 'this backbone'} has not: use a "
                "plain ViT such as ViT-B-16"
            )
        self._tower = (tower,)  # in a tuple: its weights are not this module's
        self._others: DomainVectors | None = None  # class vectors that are not being tuned

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:  # noqa: ARG002
        """Yield what is tuned: see ``DomainPrompts.matrices``."""
        for matrix in self.host.matrices():
            yield from matrix.parameters()

    def forward(self, images: Encoded, generator: torch.Generator | None = None) -> Answer:
        """Return logits and features of a batch; with a generator as in training.

        ``vectors`` are those of all domains in equal parts: an image's own are never formed.
        """
        with tower_precision(images.features.device):
            vectors = self._domain_vectors(generator)
            features, weights = self._weighed(images, self.host(generator).visual)
        logits = mixed_logits(features, weights, vectors, self.scale)
        mean = F.normalize(vectors.mean(0), dim=-1)
        return Answer(logits=logits, features=features, vectors=mean)

    def backward(self, images: Encoded, labels: Labels, generator: torch.Generator | None) -> float:
        """Add the objective's gradients of a batch and return its mean cross-entropy, nats.

        Raises
        ------
        PromptError
            Nobody said which domain the images are of.
        """
        if self.host.own is None:
            raise PromptError(
                f"prompt.method = {METHOD} is tuned by sites of one domain each: use `fedprompt "
                "simulate` with data.partitioner = domain, or set prompt.domain"
            )
        return super().backward(images, labels, generator)

    @torch.no_grad()
    def answer(self, images: EncodedImages) -> Answer:
        """Return logits and features of all images, some at a time."""
        vectors, visual = self._all_vectors(), self.host().visual
        parts = [self._weighed(images[part], visual) for part in images.parts(AT_ONCE)]
        features = torch.cat([images.features[:0], *(found for found, _ in parts)])
        weights = torch.cat([images.features.new_zeros(0, len(vectors)), *(w for _, w in parts)])
        mean = F.normalize(vectors.mean(0), dim=-1)
        logits = mixed_logits(features, weights, vectors, self.scale)
        return Answer(logits=logits, features=features, vectors=mean)

    def class_vectors(self, generator: torch.Generator | None = None) -> Tensor:
        """Return unit class vectors [classes joint] of all domains in equal parts."""
        return F.normalize(self._domain_vectors(generator).mean(0), dim=-1)

    @torch.no_grad()
    def fold(self) -> Folded:
        """Return each domain's class vectors, and the visual prompts, by the plain towers."""
        texts = self.host.text.matrices
        mixture = torch.stack([self._plain_vectors(text().unsqueeze(0)) for text in texts])
        return Folded(
            class_vectors=F.normalize(mixture.mean(0), dim=-1),
            visual=self._image_prompts(self.host().visual),
            mixture=mixture,
        )

    def load_arrays(self, arrays: PromptState) -> None:
        """Take what travelled."""
        super().load_arrays(arrays)
        self._others = None

    def leaving(self) -> PromptState:
        """Return the own domain's text prompt and the visual ones; where none is own, the first's.

        All domains' prompts are of one shape, so that this is also what a site sends in numbers.
        """
        own = (None, self.host.own or 0)
        leaving = super().leaving()
        return leaving.select([name for name in leaving if domain_of(name) in own])

    def _domain_vectors(self, generator: torch.Generator | None) -> DomainVectors:
        """Return class vectors of each domain; those that are not tuned here are computed once."""
        own = self.host.own
        if own is None:
            return self._all_vectors(generator)
        if self._others is None:
            with torch.no_grad():
                self._others = self._all_vectors()
        vectors = list(self._others.unbind())
        vectors[own] = self._vectors(self.host.text.matrices[own](generator).unsqueeze(0))
        return torch.stack(vectors)

    def _all_vectors(self, generator: torch.Generator | None = None) -> DomainVectors:
        texts = (text(generator).unsqueeze(0) for text in self.host.text.matrices)
        return torch.stack([self._vectors(text) for text in texts])

    def _weighed(
        self, images: Encoded, tokens: VisualTokens
    ) -> tuple[ImageFeatures, DomainWeights]:
        """Return unit features, and the weights of the domains."""
        prompts, (tower,) = ImagePrompts(tokens=tokens), self._tower
        found = self._in_parts(images, lambda rows: tower.weighed(rows, prompts))
        features, weights = (torch.cat(parts) for parts in zip(*found, strict=True))
        return F.normalize(features, dim=-1), weights


def mixed_logits(
    features: ImageFeatures, weights: DomainWeights, vectors: DomainVectors, scale: float
) -> Logits:
    """Return scale * cos(z, sum_i w_i t_ik), in float32 at least whatever the autocast.

    Parameters
    ----------
    features
        z [batch joint], of length one.
    weights
        w [batch domains].
    vectors
        t [domains classes joint].
    scale
        CLIP's factor of cosines.
    """
    with torch.autocast(features.device.type, enabled=False):
        z, w, t = (full_precision(part) for part in (features, weights, vectors))
        along = torch.einsum("bd,bdc->bc", w, torch.einsum("bj,dcj->bdc", z, t))
        products = torch.einsum("icj,kcj->ikc", t, t)
        squares = torch.einsum("bi,bk,ikc->bc", w, w, products)
        return scale * along / squares.sqrt()


ADAPT = Recipe(DomainPrompts, prompted=Adapt, objective="alignment")
