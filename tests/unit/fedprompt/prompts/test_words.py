import pytest

from fedprompt.errors import ArtefactError
from fedprompt.prompts.words import Layout, class_text


@pytest.mark.parametrize(
    ("layout", "template", "text"),
    [
        (Layout(3), "a photo of a {}, a plant.", "X X X {}, a plant."),
        (Layout(1), "{}", "X {}"),
        (Layout(2, "of a"), "a photo of a {}.", "X X of a {}."),
        (Layout(4, name_position="front"), "a photo of a {}.", "{} X X X X."),
        (Layout(4, name_position="middle"), "a photo of a {}.", "X X {} X X."),
        (Layout(3, name_position="middle"), "a {} at sea", "X {} X X at sea"),
        (Layout(1, name_position="middle"), "a {}.", "{} X."),
        (Layout(2, "of a", "middle"), "a photo of a {}.", "X {} X of a."),
        (Layout(2, "of a", "front"), "a photo of a {}.", "{} X X of a."),
        (Layout(2, class_specific=True), "a {}.", "X X {}."),
    ],
)
def test_a_layout_is_spoken_and_comes_back_from_its_description(
    layout: Layout, template: str, text: str
) -> None:
    assert layout.spoken(template) == text
    assert Layout.described(layout.describe()) == layout


def test_what_is_as_usual_is_not_described() -> None:
    assert Layout(3).describe() == {"tokens": 3}
    assert Layout(3, "of a", "front", True).describe() == {
        "tokens": 3,
        "frozen_words": "of a",
        "name_position": "front",
        "class_specific": True,
    }


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"frozen_words": 3}, r"frozen_words are '3'"),
        ({"frozen_words": "of {0.x}"}, r"frozen_words are 'of \{0.x\}'"),
        ({"name_position": "back"}, r"name_position 'back'.*one of end, middle, front"),
        ({"name_position": ["end"]}, r"name_position"),
        ({"class_specific": 1}, r"class_specific '1'.*true or false"),
    ],
)
def test_a_description_of_no_layout_is_refused(changed: dict[str, object], told: str) -> None:
    with pytest.raises(ArtefactError, match=told):
        Layout.described({"tokens": 2, **changed})


def test_names_are_spoken_and_their_braces_are_no_places() -> None:
    assert class_text("X {}.", "maple_tree") == "X maple tree."
    assert class_text("X {}.", "{} {0.x}") == "X {} {0.x}."
