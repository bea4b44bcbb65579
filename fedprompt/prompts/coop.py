"""CoOp: free vectors in front of every class name (arXiv 2109.01134); DIP is its low-rank form.

The text of a class is [ctx_1] ... [ctx_n] NAME REST, where REST is what the template has behind
the name; the class token stands at the end. Trained and sent: ``ctx`` [n width] in the full form,
``ctx.A`` [n r] and ``ctx.B`` [r width] in the low-rank one. Folds into class vectors.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedprompt.backbone.class_encoder import PLAIN, Speedups, class_encoder
from fedprompt.backbone.clip import FrozenClip
from fedprompt.errors import BackboneError, PromptError
from fedprompt.prompts.config import PromptConfig
from fedprompt.prompts.density import information_density, tail
from fedprompt.prompts.forms import SPREAD, Full, LowRank
from fedprompt.prompts.method import Arrays, load_module_arrays, module_arrays
from fedprompt.types import Context, TextFeatures, Tokens

RANDOM = "random"  # the value of prompt.init that asks for no words


class Coop(nn.Module):
    """Tune a text context, in either form.

    Parameters
    ----------
    clip
        The frozen CLIP; it is no part of what is trained.
    classes
        Ordered class names.
    template
        Text with ``{}``; what stands behind it follows the class name.
    ctx
        The form that gives the context [length width].
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
        ctx: Full | LowRank,
        config: PromptConfig,
        speedups: Speedups | None = None,
    ) -> None:
        super().__init__()
        self.ctx, self.config = ctx, config
        self.length = len(ctx.fold())
        tokens = clip.tokenize(placeholder_texts(classes, template, self.length))
        _check_placeholders(clip, tokens, self.length)
        self._encode = class_encoder(clip, tokens, self.length, speedups)
        self._encode_plainly = class_encoder(clip, tokens, self.length, PLAIN)

    def arrays(self) -> Arrays:
        """Return ``ctx``, or ``ctx.A`` and ``ctx.B``."""
        return module_arrays(self)

    def load_arrays(self, arrays: Arrays) -> None:
        """Take what travelled."""
        load_module_arrays(self, arrays)

    def frozen_arrays(self) -> Arrays:
        """Return the start P0 and, under a shared basis, A."""
        return {name: buffer.float().cpu().numpy().copy() for name, buffer in self.named_buffers()}

    def class_vectors(self, generator: torch.Generator | None = None) -> TextFeatures:
        """Return unit class vectors [classes joint]."""
        return F.normalize(self._encode(self.ctx(generator)), dim=-1)

    def fold(self) -> TextFeatures:
        """Return unit class vectors [classes joint] from the plain tower, for export."""
        with torch.no_grad():
            return F.normalize(self._encode_plainly(self.ctx.fold()), dim=-1)

    def penalty(self) -> Tensor:
        """Return -lambda ID_k(P) + lambda' sum_{i>k} sigma_i(P): DIP's DO and PP."""
        config, prompt = self.config, self.ctx()
        loss: Tensor = prompt.new_zeros(())
        if config.density_weight:
            loss = loss - config.density_weight * information_density(prompt, config.density_k)
        if config.tail_weight:
            loss = loss + config.tail_weight * tail(prompt, config.density_k)
        return loss

    def information_density(self) -> float:
        """Return ID_k of the folded context."""
        return float(information_density(self.ctx.fold(), self.config.density_k))

    def describe(self) -> dict[str, Any]:
        """Return method, host, form, rank and tokens."""
        low = isinstance(self.ctx, LowRank)
        return {
            "method": self.config.method,
            "host": "coop",
            "form": "lowrank" if low else "full",
            "rank": self.ctx.B.shape[0] if isinstance(self.ctx, LowRank) else 0,
            "tokens": self.length,
        }


def placeholder_texts(classes: Sequence[str], template: str, length: int) -> list[str]:
    """Return "X X ... NAME REST" for each class: each X is one token, to be replaced."""
    rest = template.partition("{}")[2]
    return [" ".join(["X"] * length) + f" {name.replace('_', ' ')}{rest}" for name in classes]


def _check_placeholders(clip: FrozenClip, tokens: Tokens, length: int) -> None:
    """Refuse a tokenizer that does not take each placeholder for one token."""
    found = tokens[:, clip.first_word : clip.first_word + length]
    if found.shape[1] != length or bool((found != found[0, 0]).any()):
        raise BackboneError(
            f"the tokenizer of {clip.name or 'this backbone'} does not read {length} times 'X' as "
            f"{length} equal tokens, so a context cannot take their place: choose another backbone"
        )


def starting_context(
    clip: FrozenClip, config: PromptConfig, template: str, generator: torch.Generator
) -> Context:
    """Return P0 [length width]: the embeddings of the starting words, or N(0, 0.02).

    Raises
    ------
    PromptError
        There are no words, the words are not as many tokens as asked for, or a random start has
        no length.
    """
    words = config.init or template.partition("{}")[0].strip()
    if words == RANDOM:
        return _random_start(clip, config.tokens, generator)
    start = clip.embed_words(words) if words else clip.text.embedding[:0]
    if not len(start) or config.tokens not in (0, len(start)):
        raise PromptError(
            f"the starting words {words!r} are {len(start)} tokens, prompt.tokens is "
            f"{config.tokens}; set prompt.tokens = 0, other words in prompt.init, or "
            f"prompt.init = {RANDOM}"
        )
    return start


def _random_start(clip: FrozenClip, length: int, generator: torch.Generator) -> Context:
    if not length:
        raise PromptError(f"prompt.init = {RANDOM} needs a length: set prompt.tokens, such as 4")
    drawn = SPREAD * torch.randn(length, clip.text.width, generator=generator)
    return drawn.to(clip.text.embedding)
