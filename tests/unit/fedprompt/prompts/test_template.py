import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fedprompt.backbone.clip import FrozenClip
from fedprompt.errors import PromptError
from fedprompt.prompts.template import Template
from tests.conftest import CLASSES


def open_clip_vectors(clip: FrozenClip, template: str) -> torch.Tensor:
    """Return zero-shot class vectors computed by open_clip alone."""
    texts = [template.replace("{}", name) for name in CLASSES]
    return F.normalize(clip.model.encode_text(clip.tokenizer(texts)), dim=-1)


def test_one_template_is_zero_shot_clip_to_the_last_bit_but_one(clip: FrozenClip) -> None:
    found = Template(clip, CLASSES, "a photo of a {}.").class_vectors()
    expected = open_clip_vectors(clip, "a photo of a {}.")
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


def test_underscores_are_spaces(clip: FrozenClip) -> None:
    found = Template(clip, ["maple_tree"], "a {}.").class_vectors()
    assert torch.equal(found, Template(clip, ["maple tree"], "a {}.").class_vectors())


def test_a_name_with_braces_is_taken_as_it_is(clip: FrozenClip) -> None:
    found = Template(clip, ["{0} {x}"], "a {}.").class_vectors()
    expected = clip.model.encode_text(clip.tokenizer(["a {0} {x}."]))
    torch.testing.assert_close(found, F.normalize(expected, dim=-1), rtol=1e-6, atol=1e-7)


def test_nothing_is_trained_and_nothing_travels(clip: FrozenClip) -> None:
    prompt = Template(clip, CLASSES, "a {}.")
    assert list(prompt.parameters()) == []
    assert prompt.arrays() == {}
    prompt.load_arrays({})
    with pytest.raises(PromptError, match=r"has no arrays, found \['ctx'\]"):
        prompt.load_arrays({"ctx": np.zeros((4, 32), np.float32)})


def test_the_rest_of_the_interface(clip: FrozenClip) -> None:
    prompt = Template(clip, CLASSES, "a {}.")
    assert torch.equal(prompt.fold(), prompt.class_vectors(torch.Generator()))
    assert np.array_equal(prompt.frozen_arrays()["vectors"], prompt.fold().numpy())
    assert float(prompt.penalty()) == 0.0
    assert prompt.information_density() == 1.0
    assert prompt.describe() == {
        "method": "template",
        "host": "template",
        "form": "full",
        "rank": 0,
        "tokens": 0,
    }
