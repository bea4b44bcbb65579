"""A shared and a local prompt together: what travels, and what stays at its site.

The idea of FedPGP and PromptFolio; the mixture is PromptFolio's, (1 - theta) shared + theta local,
of text features. Ours: it is taken of image features too, where the image tower is prompted, and
both are made of length one again. With theta = ``prompt.local_share``,

    v = normalised((1 - theta) v_shared + theta v_local)    logits = scale v_image . v_class

A head behind the image tower (linear, FedCLIP, CoCoOp) has no such features: its logits are mixed
(ours). Both are of one method and form and are trained together by the method's own objective,
which sees the mixture. Only the shared one's arrays are this prompt's arrays; it is what folds.
"""

from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from fedprompt.backbone.encoded import Encoded, EncodedImages
from fedprompt.prompt_state import PromptState
from fedprompt.prompts.headed import HeadedClip, Scores
from fedprompt.prompts.method import Answer, Folded, cosine_logits
from fedprompt.prompts.objectives.cross_entropy import by_cross_entropy
from fedprompt.prompts.prompted import PromptedClip
from fedprompt.settings.prompt import PromptConfig
from fedprompt.types import Labels, Logits, TextFeatures

Single = PromptedClip | HeadedClip  # what may be shared, and what may be local


class Mixed(nn.Module):
    """Classify by the mean of two prompts' features.

    Parameters
    ----------
    shared
        What all sites tune together.
    local
        What this site keeps; built from the same settings.
    share
        theta, the local prompt's part, from 0 to 1.
    """

    def __init__(self, shared: Single, local: Single, share: float) -> None:
        super().__init__()
        self.shared, self.local, self.share = shared, local, share
        self.first_layer = shared.first_layer

    @property
    def config(self) -> PromptConfig:
        """Return the settings of both prompts."""
        return self.shared.config

    @property
    def scale(self) -> float:
        """Return CLIP's factor of cosines."""
        return self._prompted.scale

    @property
    def zero_shot(self) -> TextFeatures:
        """Return the frozen class vectors [classes joint] of the template."""
        return self._prompted.zero_shot

    def diverse_vectors(self, templates: tuple[str, ...]) -> TextFeatures:
        """Return the frozen class vectors [classes joint] of several templates' mean feature."""
        return self._prompted.diverse_vectors(templates)

    @property
    def _prompted(self) -> PromptedClip:
        """Return the shared prompt, of which objectives ask what heads do not have."""
        return cast(PromptedClip, self.shared)

    def forward(self, images: Encoded, generator: torch.Generator | None = None) -> Answer | Scores:
        """Return mixed logits, and features if there are any; with a generator as in training."""
        return self._mix(self.shared(images, generator), self.local(images, generator))

    def backward(self, images: Encoded, labels: Labels, generator: torch.Generator | None) -> float:
        """Add the objective's gradients to both prompts and return the mean cross-entropy, nats."""
        tuned = cast(PromptedClip, self)  # an objective asks for no more than this class offers
        objective = (
            by_cross_entropy if isinstance(self.shared, HeadedClip) else self.shared.objective
        )
        return objective(tuned, images, labels, generator)

    def predict(self, images: EncodedImages) -> Logits:
        """Return mixed logits [images classes]."""
        shared, local = (
            Scores(half.predict(images)) if isinstance(half, HeadedClip) else half.answer(images)
            for half in (self.shared, self.local)
        )
        return self._mix(shared, local).logits

    def arrays(self) -> PromptState:
        """Return what travels: the shared prompt's."""
        return self.shared.arrays()

    def leaving(self) -> PromptState:
        """Return what a site sends: of the shared prompt."""
        return self.shared.leaving()

    def load_arrays(self, arrays: PromptState) -> None:
        """Take what travelled into the shared prompt."""
        self.shared.load_arrays(arrays)

    def frozen_arrays(self) -> PromptState:
        """Return the shared prompt's frozen tensors."""
        return self.shared.frozen_arrays()

    def load_frozen(self, arrays: PromptState) -> None:
        """Take the frozen tensors of an artefact into the shared prompt."""
        self.shared.load_frozen(arrays)

    def fold(self) -> Folded:
        """Return what the shared prompt alone folds to: what the server has."""
        return self.shared.fold()

    def halve_chunk(self) -> bool:
        """Compute half as much at a time in both; False if neither can."""
        return any([self.shared.halve_chunk(), self.local.halve_chunk()])

    def penalty(self) -> Tensor:
        """Return both prompts' own loss terms, a scalar."""
        return self.shared.penalty() + self.local.penalty()

    def information_density(self) -> float:
        """Return the shared prompt's."""
        return self.shared.information_density()

    def describe(self) -> dict[str, Any]:
        """Return the shared prompt's description."""
        return self.shared.describe()

    def _mix(self, shared: Answer | Scores, local: Answer | Scores) -> Answer | Scores:
        if isinstance(shared, Scores) or isinstance(local, Scores):
            return Scores((1 - self.share) * shared.logits + self.share * local.logits)
        features = self._mean(shared.features, local.features)
        vectors = self._mean(shared.vectors, local.vectors)
        logits = cosine_logits(features, vectors, self.scale)
        return Answer(logits=logits, features=features, vectors=vectors)

    def _mean(
        self, shared: Float[Tensor, "*many joint"], local: Float[Tensor, "*many joint"]
    ) -> Float[Tensor, "*many joint"]:
        if shared is local:  # a tower without prompts: no rounding of what is the same
            return shared
        return F.normalize((1 - self.share) * shared + self.share * local, dim=-1)
