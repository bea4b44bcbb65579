"""SDPT: one prompt in the joint space, taken to both towers by inverse projections.

Synchronous dual prompts were published for fusion models (arXiv 2407.11414; code for GLIP), with
tokens appended to both sequences. This is their adaptation to CLIP (ours). Prototypes Z [K joint]
are all that is trained and sent; with z = x W + b a tower's own projection, what enters is

    text    (Z - b_text) pinv(W_text)            [K text_width]     in the context's place
    vision  s (Z - b_visual) pinv(W_visual)      [K vision_width]   behind the patches

Both are computed from Z at each step, enter before the first block and propagate. The text tokens
do not stand behind the end-of-text: attention is causal, the class is read there, and nothing
behind it would ever be seen.

Z starts at P0 W_text + b_text, P0 the embeddings of the starting words: where W_text has full row
rank the text tokens are P0 again, up to its condition number, and the class vectors those of the
words; elsewhere they are P0's projection onto W_text's columns. s is one fixed number, because CLIP
projects behind a final LayerNorm and the inverse knows no scale: the root mean square of the visual
tokens at the start becomes that of the tower's own tokens for an image whose patch embeddings are
zero (class embedding and positions). Where the tower has ``ln_pre`` a token's scale is normalised
away all but for its epsilon; s counts in towers without one.

Sent: ``prototypes`` [K joint], 2,048 numbers for K = 4; in the low-rank form 4 + 512 = 516. The
inverses follow from the frozen CLIP and are computed anew wherever the host is built: machines may
differ in their last bits, so neither they nor s are part of what sites compare. s lies in the
artefact, for it depends on the start. Folds into class vectors and shallow visual prompts.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fedprompt.backbone.clip import FrozenClip
from fedprompt.prompts.forms import Form
from fedprompt.prompts.host import Entering, Material
from fedprompt.prompts.joint_space import JointSpace
from fedprompt.prompts.recipe import Recipe
from fedprompt.prompts.starts import text_start


class Sdpt(nn.Module):
    """Tune prototypes in the joint space."""

    first_layer: int | None = 0

    def __init__(self, material: Material) -> None:
        super().__init__()
        text, image = material.clip.text, material.clip.image
        self.to_text = JointSpace(text.owner.text_projection, text.width, "text")
        self.to_visual = JointSpace(image.visual.proj, image.width, "image")
        words = text_start(material)
        start, self.layout = self.to_text.points(words.matrix), words.layout
        self.prototypes = material.form(start)
        self.scale: Tensor
        scale = _frozen_size(material.clip) / _size(self.to_visual.tokens(start))
        self.register_buffer("scale", scale.reshape(1))

    def forward(self, generator: torch.Generator | None = None) -> Entering:
        """Return what the prototypes are in both towers."""
        points = self.prototypes(generator)
        visual = self.scale * self.to_visual.tokens(points)
        return Entering(text=self.to_text.tokens(points).unsqueeze(0), visual=visual.unsqueeze(0))

    def matrices(self) -> Sequence[Form]:
        """Return the prototypes."""
        return [self.prototypes]

    def describe(self) -> dict[str, Any]:
        """Return the number of prototypes."""
        return {"host": "sdpt"} | self.layout.describe()


def _frozen_size(clip: FrozenClip) -> Tensor:
    """Return the root mean square of the image tower's tokens without patches, a scalar."""
    visual = clip.image.visual
    rows = visual.positional_embedding.detach().clone()
    rows[0] += visual.class_embedding.detach()
    return _size(rows)


def _size(rows: Tensor) -> Tensor:
    return rows.square().mean().sqrt()


SDPT = Recipe(Sdpt)
