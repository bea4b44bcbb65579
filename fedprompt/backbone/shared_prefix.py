"""The fast text tower: one prefix for all classes, class suffixes as a tree.

Start token and context are the same for every class and attention is causal, so they are computed
once and every suffix attends to them (design.md, speed-up 3). No per-class copy of the prefix is
ever made. Context that stands behind a name, or is one class's own, is a node of the tree like any
word. Exact: the tests compare features and gradients with the plain tower.
"""

import torch
from jaxtyping import Float, Int
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from fedprompt.backbone.suffixes import Pairs, Suffixes, suffix_tree
from fedprompt.backbone.text_tower import TextTower
from fedprompt.types import Context, Places, TextFeatures, TextTokens, Tokens

Heads = Float[Tensor, "rows heads head_width"]
AllHeads = Float[Tensor, "all_rows heads head_width"]  # prefix and nodes


class SharedPrefix:
    """Encode one list of classes again and again under a changing context.

    Parameters
    ----------
    tower
        A causal tower read at its end-of-text token (see ``fits``).
    tokens
        Token ids, one row a class.
    places
        Which row of the context stands at each position of each class, -1 = a word. Deep contexts,
        of more layers than one, stand at positions 1..length of all classes.
    share
        Merge suffixes that begin alike (speed-up 4).
    chunk
        Classes computed at a time; with more, each chunk is recomputed in the backward pass, so
        that memory does not grow with the number of classes. 0 = all at once.
    """

    def __init__(
        self,
        tower: TextTower,
        tokens: Tokens,
        places: Places,
        *,
        share: bool = True,
        chunk: int = 256,
    ) -> None:
        self.tower, self.blocks = tower, tower.frozen_blocks()
        self.length = _common_length(places)  # of the context in front of all classes
        self.start = tower.embedding[tokens[:1, 0]]  # such towers open with a start token
        end = tower.end(tokens)
        size = chunk or len(tokens)
        ids = torch.where(places < 0, tokens, -1 - places)  # below zero: a row of the context
        self.trees = [
            suffix_tree(rows, 1 + self.length, ends, share=share)
            for rows, ends in zip(ids.split(size), end.split(size), strict=True)
        ]

    @staticmethod
    def fits(tower: TextTower) -> bool:
        """Say whether the tower is causal, read at the end and built of plain blocks."""
        plain = all(type(block) is ResidualAttentionBlock for block in tower.blocks)
        return plain and tower.reads_at_end()

    def __call__(self, context: TextTokens) -> TextFeatures:
        """Return the features [classes joint] of every class, not normalised."""
        if len(self.trees) == 1:
            return self._encode(self.trees[0], context)
        return torch.cat(
            [checkpoint(self._encode, tree, context, use_reentrant=False) for tree in self.trees]
        )

    def _encode(self, tree: Suffixes, context: TextTokens) -> TextFeatures:
        """Run [prefix; nodes] through the blocks; of the last one only the leaves are read."""
        tower, prefix = self.tower, 1 + self.length
        shared = torch.cat([self.start, context[0, : self.length]]) + tower.positions[:prefix]
        own = _embedded(tree.ids, tower, context[0]) + tower.positions[prefix + tree.depth]
        rows = torch.cat([shared, own])
        *blocks, last = self.blocks
        for index, block in enumerate(blocks):
            rows = self._overwrite(rows, context, index)
            query, key, value = block.project(rows)
            read = torch.cat(
                [
                    _attend_causally(query[:prefix], key[:prefix], value[:prefix]),
                    _attend_to_path(query[prefix:], key, value, prefix, slice(None), tree.pairs),
                ]
            )
            rows = block.close(rows, read)
        rows = self._overwrite(rows, context, len(blocks))
        query, key, value = last.project_some(rows, prefix + tree.leaves)
        read = _attend_to_path(query, key, value, prefix, tree.leaves, tree.leaf_pairs)
        pooled = tower.owner.ln_final(last.close(rows[prefix + tree.leaves], read))
        return tower.read_out(pooled)[tree.leaf_of]

    def _overwrite(
        self, rows: Float[Tensor, "rows width"], context: TextTokens, index: int
    ) -> Float[Tensor, "rows width"]:
        """Put a deep prompt in place of what entered its block; the first one is there already."""
        if not 0 < index < len(context):
            return rows
        return torch.cat([rows[:1], context[index], rows[1 + self.length :]])


def _common_length(places: Places) -> int:
    """Return how many rows of the context stand, in order, in front of every class."""
    expected = torch.arange(places.shape[1] - 1, device=places.device)
    leads = (places[:, 1:] == expected).all(0)
    return int(leads.int().cumprod(0).sum())


def _embedded(
    ids: Int[Tensor, " nodes"], tower: TextTower, context: Context
) -> Float[Tensor, "nodes width"]:
    """Return what each node is: a word's embedding, or a row of the context."""
    rows: Tensor = tower.embedding[ids.clamp(min=0)]
    own = (ids < 0).nonzero().squeeze(1)
    if not len(own):
        return rows
    return rows.index_put((own,), context[-1 - ids[own]])


def _attend_causally(query: Heads, key: Heads, value: Heads) -> Heads:
    """Attend within the prefix."""
    query, key, value = (rows.transpose(0, 1) for rows in (query, key, value))
    read = F.scaled_dot_product_attention(query, key, value, is_causal=True)
    return read.transpose(0, 1)


def _attend_to_path(
    query: Heads, key: AllHeads, value: AllHeads, prefix: int, itself: slice | Tensor, pairs: Pairs
) -> Heads:
    """Attend to the shared prefix, to the node itself and to its ancestors, in one softmax."""
    query = query * query.shape[-1] ** -0.5
    (first_key, key), (first_value, value) = (
        rows.split([prefix, len(rows) - prefix]) for rows in (key, value)
    )
    to_prefix = query.transpose(0, 1) @ first_key.permute(1, 2, 0)  # [heads rows prefix]
    to_itself = (query * key[itself]).sum(-1)  # [rows heads]
    near, far = query.index_select(0, pairs.query), key.index_select(0, pairs.ancestor)
    table = query.new_full((len(query), pairs.slots, query.shape[1]), -torch.inf)
    to_path = table.index_put((pairs.query, pairs.slot), (near * far).sum(-1))
    scores = torch.cat([to_prefix, to_itself.T.unsqueeze(-1), to_path.permute(2, 0, 1)], -1)
    weights = scores.softmax(-1)  # [heads rows prefix + 1 + slots]
    read = (weights[..., :prefix] @ first_value.transpose(0, 1)).transpose(0, 1)
    read = read + weights[..., prefix].T.unsqueeze(-1) * value[itself]
    own = weights[..., prefix + 1 :].permute(1, 2, 0)[pairs.query, pairs.slot].unsqueeze(-1)
    weighed: Tensor = own * value.index_select(0, pairs.ancestor)
    summed: Tensor = read.index_add(0, pairs.query, weighed)
    return summed
