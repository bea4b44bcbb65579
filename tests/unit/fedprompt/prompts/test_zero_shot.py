import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fedprompt.backbone.clip import FrozenClip
from fedprompt.prompts.zero_shot import diverse_vectors, zero_shot_vectors
from tests.conftest import CLASSES, tiny_clip


def by_open_clip(clip: FrozenClip, texts: list[str]) -> torch.Tensor:
    """Return unit vectors of texts from open_clip alone."""
    with torch.no_grad():
        return F.normalize(clip.model.encode_text(clip.tokenizer(texts)), dim=-1)


@pytest.mark.parametrize(
    ("name", "text"),
    [("tench", "a tench."), ("maple_tree", "a maple tree."), ("{0} {x}", "a {0} {x}.")],
)
def test_a_name_is_put_in_as_it_is_but_for_underscores(
    clip: FrozenClip, name: str, text: str
) -> None:
    found = zero_shot_vectors(clip, [name], "a {}.")
    torch.testing.assert_close(found, by_open_clip(clip, [text]), rtol=1e-6, atol=1e-7)
    assert not found.requires_grad


def test_several_templates_are_the_mean_of_unit_vectors_made_a_unit_again(clip: FrozenClip) -> None:
    templates = ("a photo of a {}.", "{}.", "itap of a {}.")
    each = [by_open_clip(clip, [t.replace("{}", c) for c in CLASSES]).numpy() for t in templates]
    mean = np.mean(each, axis=0)
    expected = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    found = zero_shot_vectors(clip, CLASSES, *templates).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert np.abs(found - each[0]).max() > 1e-3


@pytest.mark.parametrize("text", [{}, {"no_causal_mask": True, "pool_type": "last"}])
def test_diverse_templates_count_by_the_length_of_their_feature(text: dict[str, object]) -> None:
    clip = tiny_clip(**text)
    templates = ("a photo of a {}.", "{}.", "a rather long text that ends in a {}, as it happens.")
    with torch.no_grad():
        each = [
            clip.model.encode_text(clip.tokenizer([t.replace("{}", c) for c in CLASSES])).double()
            for t in templates
        ]
    mean = sum(each) / 3
    expected = mean / mean.norm(dim=1, keepdim=True)
    found = diverse_vectors(clip, CLASSES, templates)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
    of_units = zero_shot_vectors(clip, CLASSES, *templates)
    assert (found - of_units).abs().max() > 1e-5
