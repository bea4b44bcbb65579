"""Read the tensors of a causal open_clip text tower."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from export.graph.read_tower import (
    Activation,
    Array,
    Block,
    Linear,
    Norm,
    activation_of,
    as_array,
    is_plain_block,
    read_block,
    read_norm,
)
from fedprompt.backbone.clip import FrozenClip
from fedprompt.errors import GraphError


@dataclass(frozen=True, kw_only=True)
class Text:
    """Hold a text tower.

    ``end`` is the token where a class is read; None = at the largest id, as CLIP has it.
    """

    embedding: Array  # [vocabulary width]
    positions: Array  # [context_length width]
    heads: int
    blocks: tuple[Block, ...]
    activation: Activation
    norm: Norm
    projection: Linear | None  # [width joint]
    end: int | None

    @property
    def width(self) -> int:
        """Return the width of a token."""
        width: int = self.embedding.shape[1]
        return width

    @property
    def joint(self) -> int:
        """Return the numbers of a class vector."""
        return self.width if self.projection is None else self.projection.weight.shape[1]


def read_text(clip: FrozenClip) -> Text:
    """Return the tensors, as float32 arrays.

    Raises
    ------
    GraphError
        The tower is not causal, reads a class elsewhere than at its end, or has other blocks.
    """
    tower = clip.text
    if not tower.reads_at_end() or not all(map(is_plain_block, tower.blocks)):
        raise GraphError(
            f"the text tower of {clip.name or 'this backbone'} is {type(tower.owner).__name__} "
            f"with pooling {tower.pool!r}; an open vocabulary needs a causal one of plain blocks "
            "that reads a class at its end: export without --open-vocabulary"
        )
    return Text(
        embedding=as_array(tower.embedding),
        positions=as_array(tower.positions),
        heads=tower.blocks[0].attn.num_heads,
        blocks=tuple(map(read_block, tower.blocks)),
        activation=activation_of(tower.blocks[0].mlp.gelu),
        norm=read_norm(tower.owner.ln_final),
        projection=_projection(tower.owner.text_projection),
        end=tower.end_id if tower.pool == "eos" else None,
    )


def _projection(own: Any) -> Linear | None:
    if own is None:
        return None
    if not isinstance(own, nn.Linear):
        return Linear(weight=as_array(own), bias=np.zeros(own.shape[1], np.float32))
    weight = as_array(own.weight).T
    zero = np.zeros(weight.shape[1], np.float32)
    return Linear(weight=weight, bias=zero if own.bias is None else as_array(own.bias))
