import itertools

import pytest
import torch
from torch.nn import functional as F

from fedprompt.backbone.class_encoder import PLAIN, Speedups, class_encoder
from fedprompt.backbone.clip import FrozenClip
from fedprompt.backbone.prompts import TextPrompts
from fedprompt.backbone.shared_prefix import SharedPrefix
from tests.conftest import CLASSES, tiny_clip
from tests.prompts import placeholder_texts

LENGTH = 4
EVERY = [
    Speedups(cut=cut, share_prefix=prefix, share_suffixes=suffixes, chunk=chunk)
    for cut, prefix, suffixes, chunk in itertools.product(
        (True, False), (True, False), (True, False), (0, 2, 256)
    )
]


def vectors_and_gradient(encode, context):
    """Return unit class vectors and the gradient of a cross-entropy over random images."""
    context = context.clone().requires_grad_()
    vectors = F.normalize(encode(context), dim=-1)
    generator = torch.Generator().manual_seed(1)
    images = F.normalize(torch.randn(8, vectors.shape[1], generator=generator), dim=-1)
    labels = torch.randint(len(vectors), (8,), generator=generator)
    F.cross_entropy(50 * images @ vectors.T, labels).backward()
    return vectors.detach(), context.grad


@pytest.mark.parametrize("speedups", EVERY, ids=lambda s: "-".join(map(str, vars(s).values())))
def test_every_combination_equals_open_clips_77_tokens(
    clip: FrozenClip, speedups: Speedups
) -> None:
    tokens = clip.tokenize(placeholder_texts(CLASSES, "{}.", LENGTH))
    assert tokens.shape[1] == 77
    context = torch.randn(1, LENGTH, 32, generator=torch.Generator().manual_seed(5)) / 3
    plain = lambda c: clip.encode_text(tokens, TextPrompts(tokens=c))  # noqa: E731
    fast = class_encoder(clip, tokens, LENGTH, speedups)
    found, expected = (vectors_and_gradient(encode, context) for encode in (fast, plain))
    assert (found[0] - expected[0]).norm() <= 1e-5 * expected[0].norm()
    assert (found[1] - expected[1]).norm() <= 1e-5 * expected[1].norm()


def test_plain_is_the_tower_itself_bit_for_bit(clip: FrozenClip) -> None:
    tokens = clip.tokenize(placeholder_texts(CLASSES, "{}.", LENGTH))
    context = torch.randn(1, LENGTH, 32)
    found = class_encoder(clip, tokens, LENGTH, PLAIN)(context)
    assert torch.equal(found, clip.encode_text(tokens, TextPrompts(tokens=context)))


def test_all_are_on_by_default(clip: FrozenClip) -> None:
    tokens = clip.tokenize(placeholder_texts(CLASSES, "{}.", LENGTH))
    assert isinstance(class_encoder(clip, tokens, LENGTH), SharedPrefix)
    assert not isinstance(class_encoder(clip, tokens, LENGTH, PLAIN), SharedPrefix)


def test_chunks_bound_what_is_kept_for_the_backward_pass(clip: FrozenClip) -> None:
    """With recomputation, what autograd keeps grows with the logits only (speed-up 4)."""
    context = torch.randn(1, LENGTH, 32, requires_grad=True)

    def kept(classes: int, chunk: int) -> int:
        names = [f"name{index} owl{index}" for index in range(classes)]
        tokens = clip.tokenize(placeholder_texts(names, "{}.", LENGTH))
        encode = class_encoder(clip, tokens, LENGTH, Speedups(chunk=chunk))
        sizes: list[int] = []
        count = lambda t: sizes.append(t.numel()) or t  # noqa: E731
        with torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
            encode(context)
        return sum(sizes)

    assert kept(64, 16) * 10 < kept(64, 0)
    assert kept(128, 16) == 2 * kept(64, 16)


@pytest.mark.parametrize("text", [{"no_causal_mask": True}, {"pool_type": "last"}])
def test_another_design_takes_the_general_path(text: dict) -> None:
    clip = tiny_clip(context_length=16, **text)
    tokenizer = clip.tokenizer
    clip.tokenizer = lambda texts: tokenizer(texts, context_length=16)
    tokens = clip.tokenize(placeholder_texts(CLASSES, "{}.", LENGTH))
    encode = class_encoder(clip, tokens, LENGTH)
    context = torch.randn(1, LENGTH, 32)
    assert not isinstance(encode, SharedPrefix)
    assert torch.equal(encode(context), clip.encode_text(tokens, TextPrompts(tokens=context)))


def test_the_general_path_goes_in_chunks_too() -> None:
    """Memory does not grow with the number of classes for towers that are not causal either."""
    clip = tiny_clip(no_causal_mask=True)
    tokens = clip.tokenize(placeholder_texts([f"owl{i}" for i in range(24)], "{}.", LENGTH))
    context = torch.randn(1, LENGTH, 32, generator=torch.Generator().manual_seed(5)) / 3

    def kept(chunk: int) -> int:
        sizes: list[int] = []
        count = lambda t: sizes.append(t.numel()) or t  # noqa: E731
        with torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
            class_encoder(clip, tokens, LENGTH, Speedups(chunk=chunk))(context.requires_grad_())
        return sum(sizes)

    assert kept(64) * 10 < kept(0)
    whole, parts = (class_encoder(clip, tokens, LENGTH, Speedups(chunk=c)) for c in (0, 64))
    found, expected = (vectors_and_gradient(encode, context.detach()) for encode in (parts, whole))
    assert (found[0] - expected[0]).norm() <= 1e-5 * expected[0].norm()
    assert (found[1] - expected[1]).norm() <= 1e-5 * expected[1].norm()
