from pathlib import Path

import numpy as np
import pytest

from export.runtime.open_vocabulary.bundle import Bundle
from export.runtime.open_vocabulary.text_encoder import TextEncoder
from fedprompt.errors import DataError


@pytest.fixture(scope="module")
def encoder(exported_bundle: Path) -> TextEncoder:
    return TextEncoder.of(Bundle(exported_bundle), threads=1)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "nothing that the tokenizer reads"),
        ("   ", "nothing that the tokenizer reads"),
        ("_", "nothing that the tokenizer reads"),
        ("a\nb", "cannot be printed"),
        ("<end&lowbar;of&lowbar;text> owl", "special token"),
        ("owl " * 12, "of 21 tokens; the text tower reads 16"),
    ],
)
def test_a_name_that_cannot_be_read_is_refused(encoder: TextEncoder, name: str, why: str) -> None:
    with pytest.raises(DataError, match=why):
        encoder.vectors(["owl", name], ["X X X X {}, o."], None)


def test_the_longest_name_that_fits_is_read(encoder: TextEncoder) -> None:
    vectors = encoder.vectors(["owl"], ["{}" + " owl" * 13], None)
    assert np.linalg.norm(vectors) == pytest.approx(1)


def test_exclamation_marks_are_no_padding(encoder: TextEncoder) -> None:
    # '!' may have the id 0, as what stands behind a text has
    alone = encoder.vectors(["owl!!x"], ["X X X X {}"], None)
    beside = encoder.vectors(["owl!!x", "a great grey owl"], ["X X X X {}"], None)
    np.testing.assert_allclose(alone[0], beside[0], atol=1e-6)


def test_many_names_go_in_parts(encoder: TextEncoder) -> None:
    names = [f"owl {number}" for number in range(70)]
    found = encoder.vectors(names, ["X X X X {}"], None)
    np.testing.assert_allclose(
        found[66:], encoder.vectors(names[66:], ["X X X X {}"], None), atol=1e-6
    )


def test_several_templates_give_their_mean(encoder: TextEncoder) -> None:
    one, two = (encoder.vectors(["owl"], [t], None) for t in ("a {}.", "one {}."))
    expected = (one + two) / np.linalg.norm(one + two)
    np.testing.assert_allclose(
        encoder.vectors(["owl"], ["a {}.", "one {}."], None), expected, atol=1e-6
    )
