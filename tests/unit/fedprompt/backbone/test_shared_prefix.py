import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from fedprompt.backbone.clip import FrozenClip
from fedprompt.backbone.prompts import TextPrompts, leading_places
from fedprompt.backbone.shared_prefix import SharedPrefix
from tests.conftest import CLASSES, tiny_clip
from tests.prompts import placeholder_texts

CLIPS = {
    "gelu": tiny_clip(),
    "one layer": tiny_clip(layers=1),
    "layer scale": tiny_clip(ls_init_value=0.5),
}
WORDS = ["great", "sea", "maple", "owl", "fish", "tree", "x-ray"]


def features_and_gradient(encode, context):
    """Return class features and the gradient of a cross-entropy over random images."""
    context = context.clone().requires_grad_()
    features = encode(context)
    generator = torch.Generator().manual_seed(1)
    images = F.normalize(torch.randn(8, features.shape[1], generator=generator), dim=-1)
    labels = torch.randint(len(features), (8,), generator=generator)
    F.cross_entropy(50 * images @ F.normalize(features, dim=-1).T, labels).backward()
    return features.detach(), context.grad


def compare(
    clip: FrozenClip, classes: list[str], length: int, share: bool, chunk: int, layers: int = 1
) -> None:
    tokens = clip.tokenize(placeholder_texts(classes, "{}.", length))
    generator = torch.Generator().manual_seed(length)
    context = torch.randn(layers, length, 32, generator=generator) / 3
    fast = SharedPrefix(clip.text, tokens, leading_places(tokens, length), share=share, chunk=chunk)
    plain = lambda c: clip.encode_text(tokens, TextPrompts(tokens=c))  # noqa: E731
    found, expected = (features_and_gradient(encode, context) for encode in (fast, plain))
    torch.testing.assert_close(found[0], expected[0], rtol=1e-4, atol=1e-5)
    # the bound of the issue: 1e-5 relative in fp32
    assert (found[1] - expected[1]).norm() <= 1e-5 * expected[1].norm() + 1e-9


@pytest.mark.parametrize("name", list(CLIPS))
@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("chunk", [0, 2, 256])
def test_features_and_gradients_equal_the_plain_tower(name: str, share: bool, chunk: int) -> None:
    compare(CLIPS[name], list(CLASSES), 4, share, chunk)


@pytest.mark.parametrize("layers", [2, 3])
@pytest.mark.parametrize("chunk", [0, 2])
def test_deep_prompts_equal_the_plain_tower(layers: int, chunk: int) -> None:
    compare(CLIPS["layer scale"], list(CLASSES), 4, share=True, chunk=chunk, layers=layers)


@settings(max_examples=20)
@given(
    names=st.lists(
        st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(" ".join),
        min_size=2,
        max_size=9,
    ),
    length=st.integers(1, 16),
    layers=st.integers(1, 3),
)
def test_any_class_list_and_length(names: list[str], length: int, layers: int) -> None:
    distinct = [*names, "tench", "owl"]  # equal classes alone have no gradient to compare
    compare(CLIPS["gelu"], distinct, length, share=True, chunk=4, layers=layers)


def test_double_precision_agrees_to_the_last_digits() -> None:
    """In float64 only a wrong formula could differ by more than 1e-12."""
    clip = tiny_clip().double()
    tokens = clip.tokenize(placeholder_texts(CLASSES, "{}.", 3))
    context = torch.randn(3, 3, 32, dtype=torch.float64)  # three layers
    fast = SharedPrefix(clip.text, tokens, leading_places(tokens, 3))
    plain = lambda c: clip.encode_text(tokens, TextPrompts(tokens=c))  # noqa: E731
    found, expected = (features_and_gradient_64(encode, context) for encode in (fast, plain))
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)


def features_and_gradient_64(encode, context):
    context = context.clone().requires_grad_()
    encode(context).square().sum().backward()
    return context.grad


def test_a_tower_read_elsewhere_does_not_fit() -> None:
    assert SharedPrefix.fits(CLIPS["gelu"].text)
    assert not SharedPrefix.fits(tiny_clip(no_causal_mask=True).text)
    assert not SharedPrefix.fits(tiny_clip(pool_type="last").text)
