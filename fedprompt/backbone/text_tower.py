"""The plain text tower: open_clip's own forward, with a context put in place of placeholders."""

from typing import Any

import torch
from jaxtyping import Float
from open_clip.transformer import text_global_pool
from torch import Tensor, nn

from fedprompt.backbone.frozen_block import FrozenBlock
from fedprompt.backbone.prompts import TextPrompts
from fedprompt.errors import BackboneError, PromptError
from fedprompt.types import TextFeatures, Tokens


class TextTower:
    """View open_clip's text tower, whether it lies in ``CLIP`` itself or in ``model.text``.

    Raises
    ------
    BackboneError
        The tower is none that accepts token embeddings (Hugging Face encoders, CoCa).
    """

    def __init__(self, model: nn.Module) -> None:
        owner: Any = getattr(model, "text", model)
        if not hasattr(owner, "token_embedding") or getattr(owner, "cls_emb", None) is not None:
            raise BackboneError(
                f"the text tower {type(owner).__name__} takes no prompt tokens; expected an "
                "open_clip text Transformer without a class embedding: choose another backbone"
            )
        self.owner = owner  # an open_clip module; its attributes are not typed
        self.blocks = list(owner.transformer.resblocks)
        self.embedding: Tensor = owner.token_embedding.weight
        self.positions: Tensor = owner.positional_embedding
        self.causal = owner.attn_mask is not None
        self.pool: str = getattr(model, "text_pool_type", "") or owner.pool_type
        self.end_id: int = getattr(model, "text_eos_id", 0) or owner.eos_id
        self.width: int = self.embedding.shape[1]
        self._frozen: tuple[object, list[FrozenBlock]] | None = None

    def frozen_blocks(self) -> list[FrozenBlock]:
        """Return the blocks with their weights laid out for speed, once for all who ask."""
        kind = (self.embedding.dtype, self.embedding.device)
        if self._frozen is None or self._frozen[0] != kind:
            *blocks, last = self.blocks
            frozen = [*(FrozenBlock(b, last=False) for b in blocks), FrozenBlock(last, last=True)]
            self._frozen = (kind, frozen)
        return self._frozen[1]

    def embed(
        self, tokens: Tokens, prompts: TextPrompts | None
    ) -> Float[Tensor, "classes length width"]:
        """Return token embeddings with the first prompt in place, positions added."""
        rows = self.embedding[tokens].to(self.owner.transformer.get_cast_dtype())
        if prompts is not None:
            length = prompts.tokens.shape[1]
            if prompts.places is None and length + 2 > tokens.shape[1]:
                raise PromptError(
                    f"a prompt of {length} tokens leaves no room for a class name in "
                    f"{tokens.shape[1]} positions; use fewer tokens"
                )
            rows = _replace(rows, prompts, 0)
        return rows + self.positions[: tokens.shape[1]].to(rows.dtype)

    def encode(
        self, tokens: Tokens, prompts: TextPrompts | None = None, *, cut: bool = False
    ) -> TextFeatures:
        """Return the class features, not normalised.

        Parameters
        ----------
        tokens
            Token ids, one row a class.
        prompts
            What enters in place of the placeholder tokens.
        cut
            Drop what stands behind the longest end-of-text: exact, because attention is causal
            and the feature is read there (design.md, speed-up 2).
        """
        length = tokens.shape[1]
        if cut and self.reads_at_end():
            length = int(self.end(tokens).max()) + 1
        tokens = tokens[:, :length]
        rows = self._through_blocks(self.embed(tokens, prompts), self._mask(tokens), prompts)
        return self.read_out(
            text_global_pool(self.owner.ln_final(rows), tokens, self.pool, self.end_id)
        )

    def _through_blocks(
        self,
        rows: Float[Tensor, "classes length width"],
        mask: Tensor | None,
        prompts: TextPrompts | None,
    ) -> Float[Tensor, "classes length width"]:
        if prompts is None or len(prompts.tokens) == 1:
            read: Tensor = self.owner.transformer(rows, attn_mask=mask)
            return read
        for index, block in enumerate(self.blocks):
            if 0 < index < len(prompts.tokens):
                rows = _replace(rows, prompts, index)
            rows = block(rows, attn_mask=mask)
        return rows

    def read_out(self, pooled: Float[Tensor, "classes width"]) -> TextFeatures:
        """Project pooled and normalised rows into the joint space."""
        projection = self.owner.text_projection
        if projection is None:
            return pooled
        linear = isinstance(projection, nn.Module)
        features: Tensor = projection(pooled) if linear else pooled @ projection
        return features

    def reads_at_end(self) -> bool:
        """Say whether a class depends on nothing behind its end-of-text token."""
        return self.causal and self.pool in ("argmax", "eos")

    def end(self, tokens: Tokens) -> Tensor:
        """Return the position [classes] where each class is read."""
        if self.pool == "eos":
            return torch.eq(tokens, self.end_id).int().argmax(-1)
        return tokens.argmax(-1)

    def _mask(self, tokens: Tokens) -> Tensor | None:
        length = tokens.shape[1]
        mask: Tensor | None = self.owner.attn_mask
        if mask is not None:
            return mask[:length, :length]
        if getattr(self.owner, "use_pad_mask", False):
            built: Tensor = self.owner._build_additive_mask(tokens, length, self.embedding.dtype)
            return built
        return None


def _replace(
    rows: Float[Tensor, "classes positions width"], prompts: TextPrompts, index: int
) -> Float[Tensor, "classes positions width"]:
    """Put one prompt matrix in place of what stands at its positions."""
    matrix = prompts.tokens[index].to(rows.dtype)
    if prompts.places is None:
        end = 1 + len(matrix)
        return torch.cat([rows[:, :1], matrix.expand(len(rows), -1, -1), rows[:, end:]], 1)
    places = prompts.places[:, : rows.shape[1]].unsqueeze(-1)
    return torch.where(places < 0, rows, matrix[places.squeeze(-1).clamp(min=0)])
