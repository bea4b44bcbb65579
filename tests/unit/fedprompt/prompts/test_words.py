from fedprompt.prompts.words import class_text, spoken_template


def test_what_stands_behind_the_name_stays() -> None:
    assert spoken_template("a photo of a {}, a plant.", 3) == "X X X {}, a plant."
    assert spoken_template("{}", 1) == "X {}"


def test_names_are_spoken_and_their_braces_are_no_places() -> None:
    assert class_text("X {}.", "maple_tree") == "X maple tree."
    assert class_text("X {}.", "{} {0.x}") == "X {} {0.x}."
