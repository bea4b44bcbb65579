import numpy as np
import pytest
import torch

from fedprompt.backbone.clip import FrozenClip
from fedprompt.errors import PromptError
from fedprompt.prompts.template import Template
from tests.unit.fedprompt.prompts.coupled import (
    check_gradients64,
    matrix,
    moved64,
    plain_features,
    round_trip,
    sent_by_vit_b16,
    tensors,
)
from tests.unit.fedprompt.prompts.hosts import (
    IMAGES,
    NAMES,
    TEMPLATE,
    check_gradients,
    encoded,
    make,
    moved,
)


def tokens(prompt) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return t_i and v_i = W_i t_i + b_i."""
    texts = [matrix(prompt, f"text.{i}") for i in range(len(prompt.host.text))]
    own = tensors(prompt)
    visuals = [
        torch.stack([matrix(prompt, f"maps.{i}.weight") @ row for row in t]) + own[f"maps.{i}.bias"]
        for i, t in enumerate(texts)
    ]
    return texts, visuals


@pytest.mark.parametrize("form", ["full", "lowrank"])
@pytest.mark.parametrize("depth", [1, 2, 0])
def test_logits_and_gradients_equal_a_naive_insertion(
    clip: FrozenClip, form: str, depth: int
) -> None:
    prompt = moved(clip, method="maple", form=form, depth=depth)

    def plain() -> torch.Tensor:
        features, vectors = plain_features(clip, IMAGES, *tokens(prompt))
        return clip.logit_scale * features @ vectors.T

    check_gradients(prompt, encoded(clip, prompt), plain)
    _, vectors = plain_features(clip, IMAGES, *tokens(prompt))
    torch.testing.assert_close(prompt.fold().class_vectors, vectors, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", ["full", "lowrank"])
def test_gradients_in_float64(form: str) -> None:
    clip, prompt = moved64(method="maple", form=form)
    check_gradients64(clip, prompt, lambda: tokens(prompt))


def test_the_visual_prompts_are_the_equation_in_numpy(clip: FrozenClip) -> None:
    prompt = moved(clip, method="maple", spread=0.1)
    arrays, found = prompt.arrays(), prompt.fold().visual
    expected = [
        arrays[f"text.{i}"] @ arrays[f"maps.{i}.weight"].T + arrays[f"maps.{i}.bias"]
        for i in range(3)
    ]
    np.testing.assert_allclose(found.tokens.numpy(), expected, rtol=1e-4, atol=1e-5)
    assert found.first == 0


def test_the_maps_get_the_text_prompts_that_enter(clip: FrozenClip) -> None:
    """Under dropout, too: one draw of t_i for both towers."""
    prompt = moved(clip, method="maple", form="lowrank", dropout=0.5)
    for layer in prompt.host.maps:  # the maps' own dropout out of the way
        layer.weight.dropout = 0.0
    entering = prompt.host(torch.Generator().manual_seed(0))
    own = tensors(prompt)
    for i, text in enumerate(entering.text):
        expected = text @ matrix(prompt, f"maps.{i}.weight").T + own[f"maps.{i}.bias"]
        torch.testing.assert_close(entering.visual[i], expected, rtol=1e-5, atol=1e-5)
    assert not torch.equal(entering.text, prompt.host().text)


def test_the_first_text_prompt_starts_at_the_words(clip: FrozenClip) -> None:
    prompt = make(clip, method="maple", depth=1)
    expected = Template(clip, NAMES, TEMPLATE).class_vectors()
    torch.testing.assert_close(prompt.class_vectors(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "count"),
    [
        ({"tokens": 2}, 3_555_072),
        ({"tokens": 2, "form": "lowrank"}, 9 * (2 + 512 + 768 + 512 + 768)),
    ],
)
def test_numbers_sent_for_vit_b16(config: dict, count: int) -> None:
    assert sent_by_vit_b16("maple", **config) == count


def test_names_and_shapes(clip: FrozenClip) -> None:
    shapes = {n: a.shape for n, a in make(clip, method="maple", depth=2).arrays().items()}
    assert shapes == {
        "text.0": (4, 32),
        "text.1": (4, 32),
        "maps.0.weight": (48, 32),
        "maps.0.bias": (48,),
        "maps.1.weight": (48, 32),
        "maps.1.bias": (48,),
    }
    low = make(clip, method="maple", depth=1, form="lowrank", rank=2)
    shapes = {n: a.shape for n, a in low.arrays().items()}
    assert shapes == {
        "text.0.A": (4, 2),
        "text.0.B": (2, 32),
        "maps.0.weight.A": (48, 2),
        "maps.0.weight.B": (2, 32),
        "maps.0.bias": (48,),
    }


def test_density_is_of_the_prompts_and_not_of_the_maps(clip: FrozenClip) -> None:
    prompt = moved(clip, method="maple", tail_weight=1.0, density_k=1)
    spectra = [np.linalg.svd(prompt.arrays()[f"text.{i}"])[1] for i in range(3)]
    expected = np.mean([s[0] / s.sum() for s in spectra])
    assert prompt.information_density() == pytest.approx(expected, rel=1e-5)
    penalty = sum(s[1:].sum() for s in spectra)
    assert float(prompt.penalty().detach()) == pytest.approx(penalty, rel=1e-5)


@pytest.mark.parametrize("form", ["full", "lowrank"])
def test_it_comes_back_from_its_artefact(clip: FrozenClip, form: str) -> None:
    round_trip(clip, moved(clip, method="maple", form=form, depth=2))


def test_too_many_blocks_are_refused(clip: FrozenClip) -> None:
    with pytest.raises(PromptError, match=r"prompt.depth = 4, but only 3 blocks"):
        make(clip, method="maple", depth=4)
