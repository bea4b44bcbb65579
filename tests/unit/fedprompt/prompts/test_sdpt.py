import numpy as np
import pytest
import torch
from torch import nn

from fedprompt.backbone.clip import FrozenClip
from fedprompt.errors import PromptError
from fedprompt.identity_card import identity_card
from fedprompt.prompts.template import Template
from tests.conftest import tiny_clip, tiny_model
from tests.unit.fedprompt.prompts.coupled import (
    check_gradients64,
    matrix,
    moved64,
    plain_features,
    round_trip,
    tensors,
)
from tests.unit.fedprompt.prompts.hosts import (
    EXACT,
    IMAGES,
    NAMES,
    TEMPLATE,
    check_gradients,
    encoded,
    make,
    moved,
)


def tokens(prompt) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return Z pinv(W) of both towers, by the normal equations instead of an SVD."""
    model, points = prompt.clip.model, matrix(prompt, "prototypes").double()

    def back(weight: torch.Tensor) -> torch.Tensor:
        weight = weight.double()
        if len(weight) < weight.shape[1]:
            return torch.linalg.solve(weight @ weight.T, weight @ points.T).T
        return torch.linalg.solve(weight.T @ weight, points.T).T @ weight.T

    kind = model.text_projection.dtype
    scale = tensors(prompt)["scale"]
    return [back(model.text_projection).to(kind)], [scale * back(model.visual.proj).to(kind)]


@pytest.fixture(scope="module")
def full_rank() -> FrozenClip:
    """Return a CLIP whose text projection, 16 x 24, has full row rank, as CLIP's own has."""
    return tiny_clip(width=16)


@pytest.mark.parametrize("form", ["full", "lowrank"])
@pytest.mark.parametrize("width", [32, 16])
def test_logits_and_gradients_equal_a_naive_insertion(form: str, width: int) -> None:
    clip = tiny_clip(width=width).double()
    prompt = moved(clip, method="sdpt", form=form, spread=0.1)

    def plain() -> torch.Tensor:
        features, vectors = plain_features(clip, IMAGES.double(), *tokens(prompt))
        return clip.logit_scale * features @ vectors.T

    check_gradients(prompt, encoded(clip, prompt), plain)
    _, vectors = plain_features(clip, IMAGES.double(), *tokens(prompt))
    torch.testing.assert_close(prompt.fold().class_vectors, vectors, rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize("form", ["full", "lowrank"])
def test_gradients_in_float64(form: str) -> None:
    clip, prompt = moved64(method="sdpt", form=form)
    check_gradients64(clip, prompt, lambda: tokens(prompt))


@pytest.mark.parametrize("form", ["full", "lowrank"])
def test_round_0_has_the_class_vectors_of_zero_shot_clip(full_rank: FrozenClip, form: str) -> None:
    prompt = make(full_rank, method="sdpt", form=form)
    words = full_rank.embed_words("a photo of a")
    torch.testing.assert_close(prompt.host().text[0].detach(), words, rtol=1e-4, atol=1e-4)
    expected = Template(full_rank, NAMES, TEMPLATE).class_vectors()
    torch.testing.assert_close(prompt.fold().class_vectors, expected, rtol=1e-4, atol=1e-5)
    found = prompt.class_vectors().detach()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_elsewhere_it_starts_at_the_words_projection(clip: FrozenClip) -> None:
    """W_text is 32 x 24: of P0 only what lies in W's columns is left."""
    words = clip.embed_words("a photo of a").numpy()
    basis, _ = np.linalg.qr(clip.model.text_projection.numpy())
    found = make(clip, method="sdpt").host().text[0].detach().numpy()
    np.testing.assert_allclose(found, words @ basis @ basis.T, rtol=1e-4, atol=1e-4)


def test_both_towers_project_their_tokens_onto_the_prototypes(clip: FrozenClip) -> None:
    prompt = moved(clip, method="sdpt")
    entering, points = prompt.host(), matrix(prompt, "prototypes")
    text = entering.text[0] @ clip.model.text_projection
    visual = entering.visual[0] / prompt.host.scale @ clip.model.visual.proj
    torch.testing.assert_close(text, points, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(visual, points, rtol=1e-4, atol=1e-4)


def test_visual_tokens_start_at_the_size_of_the_towers_own(clip: FrozenClip) -> None:
    visual = clip.model.visual
    own = visual.positional_embedding.numpy().copy()
    own[0] += visual.class_embedding.numpy()
    found = make(clip, method="sdpt").host().visual.detach().numpy()
    assert np.sqrt(np.mean(found**2)) == pytest.approx(np.sqrt(np.mean(own**2)), rel=1e-5)


def test_the_frozen_size_is_that_of_an_image_without_patch_embeddings(clip: FrozenClip) -> None:
    """By the tower itself: black after normalisation, for its convolution has no bias."""
    rows = []
    hook = clip.model.visual.ln_pre.register_forward_pre_hook(lambda _, given: rows.append(given))
    clip.encode_image(torch.zeros(1, 3, 32, 32))
    hook.remove()
    found = make(clip, method="sdpt").host().visual.detach()
    expected = rows[0][0].square().mean()
    assert found.square().mean().item() == pytest.approx(expected.item(), rel=1e-4)


def test_another_blas_does_not_part_the_sites(clip: FrozenClip, monkeypatch) -> None:
    """Inverses that differ in their last bits are not what sites compare; starts are equal."""
    config = {"method": "sdpt", "form": "lowrank"}
    own = make(clip, **config)
    original = torch.linalg.pinv
    monkeypatch.setattr(torch.linalg, "pinv", lambda weight: original(weight) * (1 + 1e-6))
    other = make(clip, **config)
    assert not torch.equal(other.host().text, own.host().text)
    cards = [identity_card(clip, prompt, NAMES, TEMPLATE) for prompt in (own, other)]
    assert cards[0] == cards[1]
    drawn = make(clip, init="random", tokens=4, **config)
    assert identity_card(clip, drawn, NAMES, TEMPLATE) != cards[0]  # the start is compared


@pytest.mark.parametrize("form", ["full", "lowrank"])
def test_it_comes_back_from_its_artefact(clip: FrozenClip, form: str) -> None:
    """The scale, too: it depends on the start, which the artefact of the full form has not."""
    artefact, found = round_trip(clip, moved(clip, method="sdpt", form=form))
    assert artefact.tensors["scale"].shape == (1,)
    assert found.host.scale.item() != 1
    expected = {"prototypes.start", "scale"} if form == "lowrank" else {"scale"}
    assert found.frozen_arrays().keys() == expected


def test_a_projection_with_a_bias_is_inverted_with_it() -> None:
    """open_clip's text towers may project by nn.Linear."""
    model = tiny_model(width=16)
    torch.manual_seed(0)
    layer = nn.Linear(16, 24)
    with torch.no_grad():
        layer.weight.copy_(model.text_projection.T)
    del model.text_projection
    model.text_projection = layer
    clip = tiny_clip()
    clip = FrozenClip(model, clip.tokenizer, clip.preprocessing)
    expected = Template(clip, NAMES, TEMPLATE).class_vectors()
    found = make(clip, method="sdpt").class_vectors().detach()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_tower_without_projection_is_refused() -> None:
    model, clip = tiny_model(), tiny_clip()
    model.visual.proj = None
    clip = FrozenClip(model, clip.tokenizer, clip.preprocessing)
    with pytest.raises(PromptError, match="image tower's projection is NoneType"):
        make(clip, method="sdpt")
