import pytest
import torch

from fedprompt.backbone.class_encoder import Speedups
from fedprompt.backbone.clip import FrozenClip
from fedprompt.errors import BackboneError, DataError, PromptError
from fedprompt.prompts.class_texts import ClassTexts, class_tokens, placed_tokens
from fedprompt.prompts.words import Layout
from tests.conftest import CLASSES, tiny_clip
from tests.unit.fedprompt.prompts.naive import class_vectors, placed_vectors

TEMPLATE = "a photo of a {}."
DEEP = torch.randn(2, 4, 32, generator=torch.Generator().manual_seed(0))  # two blocks' prompts


LAYOUTS = [
    Layout(4),
    Layout(16),
    Layout(2, "of a"),
    Layout(4, name_position="middle"),
    Layout(3, name_position="middle"),
    Layout(2, "in the wild", "front"),
    Layout(2, class_specific=True),
    Layout(3, "of a", "middle", class_specific=True),
    Layout(3, "of a", "front", class_specific=True),
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_places_are_those_of_the_placeholders_in_order(clip: FrozenClip, layout: Layout) -> None:
    """Names with an X, punctuation or several words of their own do not move them."""
    names = ["maple_tree", "{} owl", "x", "X X", "st. john's wort!!", "X-ray"]
    template = "a photo of a {}, a plant."
    tokens, places = placed_tokens(clip, names, template, layout)
    x = clip.tokenizer(["X"])[0, 1]
    marked = layout.spoken(template).split(" ")
    for c, name in enumerate(names):
        parts = []
        for word in marked:
            vector = word.rstrip(",") == "X"
            tail = word[1:] if vector else word.replace("{}", name.replace("_", " "))
            parts += [(clip.tokenizer([tail])[0], False)] if not vector else [(None, True)]
            parts += [(clip.tokenizer([tail])[0], False)] if vector and tail else []
        expected, seen = [-1], 0
        for row, vector in parts:
            expected += [seen] if vector else [-1] * (int(row.argmax()) - 1)
            seen += vector
        expected += [-1] * (77 - len(expected))
        own = places[c] - c * layout.length * (places[c] >= 0) * layout.class_specific
        assert own.tolist() == expected
        assert (tokens[c][places[c] >= 0] == x).all()
        assert seen == layout.length


@pytest.mark.parametrize("layout", LAYOUTS)
def test_vectors_and_gradients_are_those_of_a_plain_tower(layout: Layout) -> None:
    """In float64: through the shared prefix and tree, in chunks, and through the plain tower."""
    clip = tiny_clip().double()
    rows = layout.length * (len(CLASSES) if layout.class_specific else 1)
    draws = torch.Generator().manual_seed(0)
    prompt = torch.randn(1, rows, 32, generator=draws, dtype=torch.float64).requires_grad_()
    weight = torch.randn(len(CLASSES), 24, generator=draws, dtype=torch.float64)
    expected = placed_vectors(clip, CLASSES, TEMPLATE, layout, prompt[0])
    [wanted] = torch.autograd.grad((expected * weight).sum(), prompt)
    texts = ClassTexts(clip, CLASSES, TEMPLATE, layout)
    encoders = [texts.vectors, texts.plain_vectors]
    for speedups in (Speedups(chunk=2), Speedups(share_suffixes=False), Speedups(cut=False)):
        encoders.append(ClassTexts(clip, CLASSES, TEMPLATE, layout, speedups).vectors)
    for encode in encoders:
        found = encode(prompt)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-11)
        [gradient] = torch.autograd.grad((found * weight).sum(), prompt)
        assert (gradient - wanted).norm() <= 1e-10 * wanted.norm()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_other_towers_take_every_layout(layout: Layout) -> None:
    """A tower that is not causal is read by the plain path."""
    clip = tiny_clip(no_causal_mask=True, pool_type="last").double()
    rows = layout.length * (len(CLASSES) if layout.class_specific else 1)
    draws = torch.Generator().manual_seed(0)
    prompt = torch.randn(1, rows, 32, generator=draws, dtype=torch.float64)
    expected = placed_vectors(clip, CLASSES, TEMPLATE, layout, prompt[0])
    found = ClassTexts(clip, CLASSES, TEMPLATE, layout).vectors(prompt)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("template", ["a photo of a {}.", "X X X X X X {}.", "{}, a kind of {}"])
def test_a_name_that_is_too_long_is_named_itself(clip: FrozenClip, template: str) -> None:
    with pytest.raises(DataError, match="the class name 'very_very") as caught:
        class_tokens(clip, ["cat", "very_" * 80], template)
    assert "X X" not in str(caught.value)
    assert "77 tokens" in str(caught.value)


@pytest.mark.parametrize("template", ["so " * 76 + "{}.", "{}" + " so" * 76])
def test_a_template_without_room_is_not_the_fault_of_a_name(
    clip: FrozenClip, template: str
) -> None:
    with pytest.raises(PromptError, match=r"leave none for a class name; set a smaller prompt.tok"):
        class_tokens(clip, ["cat", "dog"], template)


def test_the_longest_name_that_fits_is_whole(clip: FrozenClip) -> None:
    fits = class_tokens(clip, [" ".join(["cat"] * 74)], "{}")
    assert (fits[0, 1:75] == fits[0, 1]).all()
    with pytest.raises(DataError):
        class_tokens(clip, [" ".join(["cat"] * 76)], "{}")


def test_vectors_are_those_of_towers_with_the_prompts_put_in_by_hooks(clip: FrozenClip) -> None:
    texts = ClassTexts(clip, CLASSES, TEMPLATE, Layout(4))
    with torch.no_grad():
        expected = class_vectors(clip, CLASSES, ".", list(DEEP))
        torch.testing.assert_close(texts.vectors(DEEP), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(texts.plain_vectors(DEEP), expected, rtol=1e-4, atol=1e-5)


def test_half_as_many_classes_at_a_time_give_the_same_vectors_and_gradients(
    clip: FrozenClip,
) -> None:
    whole, texts = (
        ClassTexts(clip, CLASSES, TEMPLATE, Layout(4)),
        ClassTexts(clip, CLASSES, TEMPLATE, Layout(4)),
    )
    weight = torch.randn(len(CLASSES), 24, generator=torch.Generator().manual_seed(1))

    def gradient(encoded: ClassTexts) -> torch.Tensor:
        prompts = DEEP.clone().requires_grad_()
        return torch.autograd.grad((encoded.vectors(prompts) * weight).sum(), prompts)[0]

    expected = gradient(whole)
    assert texts.halve_chunk()  # six classes: three at a time
    torch.testing.assert_close(gradient(texts), expected, rtol=1e-4, atol=1e-5)
    assert texts.halve_chunk()  # one at a time
    torch.testing.assert_close(gradient(texts), expected, rtol=1e-4, atol=1e-5)
    assert not texts.halve_chunk()


def test_a_tokenizer_that_joins_placeholders_is_refused() -> None:
    clip = tiny_clip()
    tokenizer = clip.tokenizer
    clip.tokenizer = lambda texts: tokenizer([text.replace("X X", "XX") for text in texts])
    with pytest.raises(BackboneError, match="4 times 'X'"):
        ClassTexts(clip, CLASSES, TEMPLATE, Layout(4))


def test_names_that_this_tokenizer_makes_equal_are_refused(clip: FrozenClip) -> None:
    with pytest.raises(DataError, match="'Cat' and 'cat' are the same words"):
        class_tokens(clip, ["dog", "Cat", "cat"], "a {}.")
    assert len(class_tokens(clip, ["cat", "cat"], "a {}.")) == 2
