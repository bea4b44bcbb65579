"""The fast prompted image tower: prompts that the next block overwrites are keys and values only.

What a deep prompt becomes behind its block is thrown away, so it needs no query, no output and no
MLP; of the last block only the class token is read (design.md, speed-up 5). Exact: the tests
compare features and gradients with the plain tower.
"""

import torch
from jaxtyping import Float
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor
from torch.nn import functional as F

from fedprompt.backbone.frozen_block import FrozenBlock
from fedprompt.backbone.image_tower import ImageTower
from fedprompt.backbone.prompts import ImagePrompts
from fedprompt.errors import PromptError
from fedprompt.types import Activations, Context, DomainWeights, ImageFeatures

Heads = Float[Tensor, "batch heads rows head_width"]
Long = Float[Tensor, "batch all_tokens vision_width"]  # with prompts behind the tower's own
AllHeads = Float[Tensor, "all_rows heads head_width"]


class PromptedImages:
    """Encode images under changing prompts, from the activations before the first prompted block.

    Parameters
    ----------
    tower
        Read at its class token and built of plain blocks (see ``fits``).
    """

    def __init__(self, tower: ImageTower) -> None:
        self.tower = tower
        *blocks, last = tower.blocks
        self.blocks = [FrozenBlock(block, last=False) for block in blocks]
        self.last = FrozenBlock(last, last=True)

    @staticmethod
    def fits(tower: ImageTower) -> bool:
        """Say whether the tower is read at its class token and built of plain blocks."""
        plain = all(type(block) is ResidualAttentionBlock for block in tower.blocks)
        return plain and tower.visual.attn_pool is None and tower.visual.pool_type == "tok"

    def __call__(self, rows: Activations, prompts: ImagePrompts) -> ImageFeatures:
        """Return image features, not normalised, of rows that enter block ``prompts.first``."""
        return self.tower.read_out(self._close(*self._before_last(rows, prompts))[0])

    def weighed(
        self, rows: Activations, prompts: ImagePrompts
    ) -> tuple[ImageFeatures, DomainWeights]:
        """Return image features, not normalised, and what the class token makes of each prompt.

        For prompts of one matrix, which propagate. With q the class token's query in the last block
        and k_i the key of prompt i there, w_i = mean over heads of softmax_i(q . k_i / sqrt(head
        width)) (ADAPT, arXiv 2310.03103).

        Raises
        ------
        PromptError
            Nothing propagates: there are several matrices, or one block.
        """
        rows, guests = self._before_last(rows, prompts)
        if guests is not None or len(prompts.tokens) != 1:
            raise PromptError(
                f"prompts of {len(prompts.tokens)} blocks in a tower of {len(self.blocks) + 1} do "
                "not reach its last block; weights need one matrix of prompts, and two blocks"
            )
        closed, query, key = self._close(rows, None)
        guest_keys = _by_image(key, len(rows))[:, :, -prompts.tokens.shape[1] :]
        scores = torch.einsum("bhe,bhde->bhd", query, guest_keys)
        weights = (scores * query.shape[-1] ** -0.5).softmax(-1).mean(1)
        return self.tower.read_out(closed), weights

    def _before_last(self, rows: Activations, prompts: ImagePrompts) -> tuple[Long, Context | None]:
        """Return what enters the last block, and the prompts that enter there only."""
        deep = len(prompts.tokens)
        for offset, block in enumerate(self.blocks[prompts.first :]):
            guests = self.tower.entering(prompts, offset) if offset < deep else None
            if guests is not None and offset + 1 == deep:  # nothing overwrites them: they propagate
                rows = torch.cat([rows, guests.expand(len(rows), -1, -1)], 1)
                guests = None
            rows = _through(block, rows, guests)
        offset = len(self.blocks) - prompts.first
        return rows, self.tower.entering(prompts, offset) if offset < deep else None

    def _close(
        self, rows: Long, guests: Context | None
    ) -> tuple[
        Float[Tensor, "batch 1 vision_width"], Float[Tensor, "batch heads head_width"], AllHeads
    ]:
        """Run the last block for the class token; return also its query, and the keys of all."""
        batch, count = rows.shape[:2]
        flat = rows.flatten(0, 1)
        chosen = torch.arange(0, batch * count, count, device=rows.device)
        query, key, value = self.last.project_some(flat, chosen)
        read = _attend(self.last, query, key, value, batch, guests)
        return self.last.close(flat[chosen], read).unsqueeze(1), query, key


def _through(block: FrozenBlock, rows: Activations, guests: Context | None) -> Activations:
    """Run one block; ``guests`` are attended to and leave no trace."""
    flat = rows.flatten(0, 1)
    query, key, value = block.project(flat)
    read = _attend(block, query, key, value, len(rows), guests)
    closed: Tensor = block.close(flat, read).unflatten(0, rows.shape[:2])
    return closed


def _attend(
    block: FrozenBlock, query: Tensor, key: Tensor, value: Tensor, batch: int, guests: Tensor | None
) -> Float[Tensor, "queries heads head_width"]:
    """Attend within each image, and to the guests of all."""
    query, key, value = (_by_image(part, batch) for part in (query, key, value))
    if guests is not None:
        shared = (part.transpose(0, 1).expand(batch, -1, -1, -1) for part in block.keys(guests))
        key, value = (
            torch.cat([own, extra], 2) for own, extra in zip((key, value), shared, strict=True)
        )
    read = F.scaled_dot_product_attention(query, key, value)
    return read.transpose(1, 2).flatten(0, 1)


def _by_image(rows: AllHeads, batch: int) -> Heads:
    split: Tensor = rows.unflatten(0, (batch, -1)).transpose(1, 2)
    return split
