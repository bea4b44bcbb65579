import torch

from fedprompt.backbone.suffixes import suffix_tree

#        start X great owl . end
TOKENS = torch.tensor(
    [
        [90, 1, 5, 6, 2, 99, 0],
        [90, 1, 5, 7, 2, 99, 0],
        [90, 1, 8, 2, 99, 0, 0],
        [90, 1, 5, 6, 2, 99, 0],
    ]
)
END = TOKENS.argmax(-1)


def test_common_beginnings_and_equal_classes_share_nodes() -> None:
    tree = suffix_tree(TOKENS, 2, END)
    assert tree.ids.tolist() == [5, 6, 2, 99, 7, 2, 99, 8, 2, 99]
    assert tree.depth.tolist() == [0, 1, 2, 3, 1, 2, 3, 0, 1, 2]
    assert tree.leaves.tolist() == [3, 6, 9]
    assert tree.leaf_of.tolist() == [0, 1, 2, 0]
    ancestors = tree.pairs.ancestor[tree.pairs.query == 6]
    assert ancestors.tolist() == [0, 4, 5]
    assert tree.leaf_pairs.ancestor[tree.leaf_pairs.query == 1].tolist() == [0, 4, 5]


def test_unshared_every_class_keeps_its_own() -> None:
    tree = suffix_tree(TOKENS, 2, END, share=False)
    assert len(tree.ids) == 4 + 4 + 3 + 4
    assert tree.leaf_of.tolist() == [0, 1, 2, 3]


def test_a_suffix_of_one_token_has_no_ancestors() -> None:
    tree = suffix_tree(torch.tensor([[90, 99, 0]]), 1, torch.tensor([1]))
    assert tree.pairs.slots == 0
    assert len(tree.pairs.query) == 0
