import numpy as np
import pytest
import torch

from export.fold.constants import Adapter, Constants, VisualPrompts
from export.targets.new_classes import Words, fixed_by, require_open, words_of
from fedprompt.backbone.clip import FrozenClip
from fedprompt.errors import GraphError
from fedprompt.prompts.artefacts import from_artefact
from fedprompt.prompts.template import ENSEMBLE_TEMPLATES
from tests.prompts import TEMPLATE, tuned

VECTORS = np.eye(2, 4, dtype=np.float32)
SQUARE, ROW = np.zeros((4, 4), np.float32), np.zeros(4, np.float32)


@pytest.mark.parametrize(
    ("method", "templates"),
    [
        ("dip", ("X X X X {}, outdoors.",)),
        ("vpt", (TEMPLATE,)),
        ("fedclip", (TEMPLATE,)),
        ("template", (TEMPLATE,)),
        ("ensemble", ENSEMBLE_TEMPLATES),
    ],
)
def test_the_words_of_a_method(clip: FrozenClip, method: str, templates: tuple[str, ...]) -> None:
    artefact = tuned(clip, method)
    words = words_of(from_artefact(artefact, clip), TEMPLATE)
    assert words.templates == templates
    assert (words.context is None) == (method != "dip")
    if words.context is not None:
        factors = (torch.from_numpy(artefact.tensors[f"ctx.{side}"].copy()) for side in "AB")
        expected = artefact.tensors["ctx.start"] + torch.matmul(*factors).numpy()
        np.testing.assert_allclose(words.context, expected[None], atol=1e-6)


def test_what_serves_its_own_classes_only_is_refused() -> None:
    with pytest.raises(GraphError, match="a weight and a bias"):
        require_open(Constants(class_vectors=VECTORS, bias=np.zeros(2, np.float32)), "linear")
    with pytest.raises(GraphError, match="several domains"):
        require_open(Constants(class_vectors=VECTORS, mixture=VECTORS[None]), "adapt")
    require_open(Constants(class_vectors=VECTORS), "dip")


def test_why_a_prompt_cannot_be_exchanged() -> None:
    prompted = Words(("X {}",), np.zeros((1, 1, 4), np.float32))
    visual = VisualPrompts(tokens=np.zeros((1, 1, 4), np.float32))
    adapter = Adapter(hidden=SQUARE, hidden_bias=ROW, gate=SQUARE, gate_bias=ROW)
    plain = Constants(class_vectors=VECTORS)
    assert fixed_by(plain, prompted, "dip") == ""
    assert "image tower" in fixed_by(Constants(class_vectors=VECTORS, visual=visual), prompted, "x")
    assert "adapter" in fixed_by(Constants(class_vectors=VECTORS, adapter=adapter), prompted, "x")
    assert "no text prompt" in fixed_by(plain, Words(("{}",)), "template")


@pytest.mark.parametrize(
    ("settings", "spoken", "leading"),
    [
        ({"tokens": 2}, "X X of a {}, outdoors.", True),
        ({"name_position": "middle"}, "X X {} X X, outdoors.", False),
        ({"name_position": "front"}, "{} X X X X, outdoors.", False),
    ],
)
def test_the_words_of_a_layout(
    clip: FrozenClip, settings: dict[str, object], spoken: str, leading: bool
) -> None:
    words = words_of(from_artefact(tuned(clip, "coop", **settings), clip), TEMPLATE)
    assert (words.templates, words.leading) == ((spoken,), leading)


def test_vectors_of_each_class_have_nothing_for_a_new_one(clip: FrozenClip) -> None:
    prompt = from_artefact(tuned(clip, "dip", class_specific=True), clip)
    told = "class_specific = true has no open vocabulary: each class it was tuned for has vectors"
    with pytest.raises(GraphError, match=told):
        words_of(prompt, TEMPLATE)
