"""Class suffixes as a tree: what classes share is computed once, and nothing is padded.

Behind the shared context each class is a short path of tokens (its name, the full stop, the end of
text). Attention is causal, so a token's state depends on its path alone: classes whose names begin
alike share nodes, equal classes share all of them (design.md, speed-up 4).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from fedprompt.types import Tokens

Index = Int[Tensor, " pairs"]


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """List who attends to which ancestor: one entry for each pair of query and ancestor."""

    query: Index  # row of the query
    ancestor: Index  # node attended to
    slot: Index  # the ancestor's depth: its column in the table of attention scores
    slots: int  # columns of that table


@dataclass(frozen=True, kw_only=True)
class Suffixes:
    """Hold the tree of a list of classes, nodes in order of first appearance."""

    ids: Int[Tensor, " nodes"]  # token id; -1 - i for row i of the context
    depth: Int[Tensor, " nodes"]  # 0 right behind the context
    pairs: Pairs  # queries are all nodes
    leaves: Int[Tensor, " leaves"]  # the distinct nodes where a class is read
    leaf_pairs: Pairs  # queries are the leaves
    leaf_of: Int[Tensor, " classes"]  # index into ``leaves``


def suffix_tree(
    tokens: Tokens, start: int, end: Int[Tensor, " classes"], *, share: bool = True
) -> Suffixes:
    """Build the tree of ``tokens[c, start : end[c] + 1]`` over all classes c.

    Parameters
    ----------
    tokens
        Token ids, one row a class.
    start
        First position behind the shared prefix.
    end
        Position where each class is read.
    share
        Merge common beginnings; off, every class keeps nodes of its own (for comparison).
    """
    nodes: dict[tuple[int, ...], int] = {}
    paths: list[list[int]] = []
    ids: list[int] = []
    ends: list[int] = []
    for row, (line, last) in enumerate(zip(tokens.tolist(), end.tolist(), strict=True)):
        key: tuple[int, ...] = () if share else (-1 - row,)
        path: list[int] = []
        for token in line[start : last + 1]:
            key = (*key, token)
            if key not in nodes:
                nodes[key] = len(ids)
                ids.append(token)
                paths.append([*path, nodes[key]])
            path = paths[nodes[key]]
        ends.append(path[-1])
    return _tensors(ids, paths, ends, tokens.device)


def _tensors(
    ids: list[int], paths: list[list[int]], ends: list[int], device: torch.device
) -> Suffixes:
    leaves = list(dict.fromkeys(ends))
    order = {node: index for index, node in enumerate(leaves)}
    return Suffixes(
        ids=torch.tensor(ids, device=device),
        depth=torch.tensor([len(path) - 1 for path in paths], device=device),
        pairs=_pairs(paths, device),
        leaves=torch.tensor(leaves, device=device),
        leaf_pairs=_pairs([paths[node] for node in leaves], device),
        leaf_of=torch.tensor([order[node] for node in ends], device=device),
    )


def _pairs(paths: list[list[int]], device: torch.device) -> Pairs:
    rows = [
        (row, ancestor, slot)
        for row, path in enumerate(paths)
        for slot, ancestor in enumerate(path[:-1])
    ]
    query, ancestor, slot = torch.tensor(rows, dtype=torch.long, device=device).reshape(-1, 3).T
    return Pairs(query=query, ancestor=ancestor, slot=slot, slots=max(map(len, paths)) - 1)
