import pytest
import torch

from fedprompt.backbone.clip import FrozenClip
from fedprompt.errors import BackboneError, DataError, PromptError
from fedprompt.prompts.class_texts import ClassTexts, class_tokens, placeholder_texts
from tests.conftest import CLASSES, tiny_clip
from tests.unit.fedprompt.prompts.naive import class_vectors

TEMPLATE = "a photo of a {}."
DEEP = torch.randn(2, 4, 32, generator=torch.Generator().manual_seed(0))  # two blocks' prompts


def test_the_text_behind_the_name_stays(clip: FrozenClip) -> None:
    found = placeholder_texts(["maple_tree", "{} owl"], "a photo of a {}, a plant.", 2)
    assert found == ["X X maple tree, a plant.", "X X {} owl, a plant."]
    tokens = clip.tokenize(placeholder_texts(CLASSES, "{}.", 16))
    assert len({row[1 : 1 + 16].tolist() == [343] * 16 for row in tokens}) == 1


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
    texts = ClassTexts(clip, CLASSES, TEMPLATE, 4)
    with torch.no_grad():
        expected = class_vectors(clip, CLASSES, ".", list(DEEP))
        torch.testing.assert_close(texts.vectors(DEEP), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(texts.plain_vectors(DEEP), expected, rtol=1e-4, atol=1e-5)


def test_half_as_many_classes_at_a_time_give_the_same_vectors_and_gradients(
    clip: FrozenClip,
) -> None:
    whole, texts = ClassTexts(clip, CLASSES, TEMPLATE, 4), ClassTexts(clip, CLASSES, TEMPLATE, 4)
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
        ClassTexts(clip, CLASSES, TEMPLATE, 4)
