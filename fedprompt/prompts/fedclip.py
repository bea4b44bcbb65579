"""FedCLIP: an attention adapter on the image feature (arXiv 2302.13485; code).

    z' = (a * z) / |a * z|    a = softmax(G tanh(H z + h) + g)    logits = s z' . class vector

`fedprompt.prompts.attention` is the equation; the class vectors are the template's. The code gives
the adapter the feature as CLIP left it, here z has length one (ours: that is what a site keeps),
and trains by a contrastive loss of a batch and its texts, here by cross-entropy over the classes.
H starts as torch's linear layer, h, G and g at zero, so that all numbers weigh alike and round 0 is
zero-shot CLIP (ours). Trained and sent: ``hidden`` H, ``hidden_bias``, ``gate`` G, ``gate_bias``; 2
(joint joint + joint) numbers, 525,312 at joint 512; both matrices take either form. Folds into
class vectors and the adapter, which stays in the graph. It serves any classes.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from fedprompt.prompts.attention import FeatureAttention
from fedprompt.prompts.forms import Form
from fedprompt.prompts.head import linear_start, refuse_prompt_terms
from fedprompt.prompts.host import Material
from fedprompt.prompts.method import Folded, cosine_logits
from fedprompt.prompts.recipe import HeadRecipe
from fedprompt.prompts.zero_shot import zero_shot_vectors
from fedprompt.types import ImageFeatures, Logits


class FedClip(nn.Module):
    """Tune which numbers of an image feature count."""

    def __init__(self, material: Material, classes: Sequence[str]) -> None:
        super().__init__()
        refuse_prompt_terms(material.config)
        self.scale = material.clip.logit_scale
        # no buffer: an artefact tuned for some classes serves others
        self._vectors = zero_shot_vectors(material.clip, classes, material.template)
        joint = self._vectors.shape[1]
        self.hidden = material.form(linear_start(joint, joint, material))
        self.gate = material.form(self._vectors.new_zeros(joint, joint))
        self.hidden_bias = nn.Parameter(self._vectors.new_zeros(joint))
        self.gate_bias = nn.Parameter(self._vectors.new_zeros(joint))

    def forward(self, features: ImageFeatures, generator: torch.Generator | None = None) -> Logits:
        """Return scale * cos(weighed image, class)."""
        attention = FeatureAttention(
            hidden=self.hidden(generator),
            hidden_bias=self.hidden_bias,
            gate=self.gate(generator),
            gate_bias=self.gate_bias,
        )
        return cosine_logits(attention(features), self._vectors, self.scale)

    def fold(self) -> Folded:
        """Return the class vectors and the adapter."""
        adapter = FeatureAttention(
            hidden=self.hidden.fold(),
            hidden_bias=self.hidden_bias.detach().clone(),
            gate=self.gate.fold(),
            gate_bias=self.gate_bias.detach().clone(),
        )
        return Folded(class_vectors=self._vectors, adapter=adapter)

    def matrices(self) -> Sequence[Form]:
        """Return H and G."""
        return [self.hidden, self.gate]

    def halve_chunk(self) -> bool:
        """Return False: two products are all there is."""
        return False

    def describe(self) -> dict[str, Any]:
        """Return the kind; an adapter has no tokens."""
        return {"host": "fedclip", "tokens": 0}


FEDCLIP = HeadRecipe(FedClip)
