import numpy as np
import pytest
import torch

from fedprompt.backbone.clip import FrozenClip
from fedprompt.errors import ArtefactError
from fedprompt.identity_card import identity_card
from fedprompt.prompts.artefacts import from_artefact
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
from tests.unit.fedprompt.prompts.test_maps import numbers, transformer

FROZEN = {"method": "mudpt", "freeze_maps": True}


def tokens(prompt) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return what enters under linear maps, each row by itself: x W^T + b is W x + b."""
    depth, own = len(prompt.host.text), tensors(prompt)
    texts = [matrix(prompt, f"text.{i}") for i in range(depth)]
    visuals = [matrix(prompt, f"visual.{i}") for i in range(depth)]

    def shift(name: str, rows: torch.Tensor) -> torch.Tensor:
        weight = matrix(prompt, f"maps.{name}.weight")
        return torch.stack([weight @ row + own[f"maps.{name}.bias"] for row in rows])

    entering_visual = [visuals[0] + shift("E", texts[0])]
    entering_text = [texts[0]]
    for text, visual in zip(texts[1:], visuals[1:], strict=True):
        entering_visual.append(visual + shift("F", text))
        entering_text.append(text + shift("G", visual))
    return entering_text, entering_visual


@pytest.mark.parametrize("form", ["full", "lowrank"])
@pytest.mark.parametrize("depth", [1, 2, 0])
def test_logits_and_gradients_equal_a_naive_insertion(
    clip64: FrozenClip, form: str, depth: int
) -> None:
    prompt = moved(clip64, method="mudpt", form=form, depth=depth)

    def plain() -> torch.Tensor:
        features, vectors = plain_features(clip64, IMAGES.double(), *tokens(prompt))
        return clip64.logit_scale * features @ vectors.T

    check_gradients(prompt, encoded(clip64, prompt), plain)
    _, vectors = plain_features(clip64, IMAGES.double(), *tokens(prompt))
    torch.testing.assert_close(prompt.fold().class_vectors, vectors, rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize("form", ["full", "lowrank"])
def test_gradients_in_float64(form: str) -> None:
    clip, prompt = moved64(method="mudpt", form=form)
    check_gradients64(clip, prompt, lambda: tokens(prompt))


@pytest.mark.parametrize("form", ["full", "lowrank"])
@pytest.mark.parametrize("freeze", [False, True])
def test_transformer_maps_are_the_equation_in_numpy(
    clip: FrozenClip, form: str, freeze: bool
) -> None:
    """One map from text to vision, for the first layer as for the others, and one back."""
    prompt = moved(clip, method="mudpt", maps="transformer", form=form, freeze_maps=freeze)
    own = numbers(prompt.host)
    maps = prompt.host._frozen[0] if freeze else prompt.host.maps
    to_vision, to_text = numbers(maps["E"]), numbers(maps["G"])
    assert "F" not in maps
    entering = prompt.host()
    for i in range(3):
        text, visual = own[f"text.{i}"], own[f"visual.{i}"]
        expected = visual + transformer(text, to_vision, 1)
        found = entering.visual[i].detach().numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
        expected = text + transformer(visual, to_text, 1) if i else text
        found = entering.text[i].detach().numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("form", ["full", "lowrank"])
def test_gradients_reach_transformer_maps(clip: FrozenClip, form: str) -> None:
    """By finite differences of the features along a random direction of all that is trained."""
    clip, prompt = moved64(method="mudpt", maps="transformer", form=form, spread=0.1)
    images = IMAGES[:2].double()
    draws = torch.Generator().manual_seed(1)
    trained = list(prompt.parameters())
    ways = [torch.randn(p.shape, generator=draws, dtype=p.dtype) for p in trained]

    def score() -> torch.Tensor:
        entering = prompt.host()
        features, vectors = plain_features(clip, images, [*entering.text], [*entering.visual])
        return (features @ vectors.T).square().sum()

    def at(step: float) -> float:
        with torch.no_grad():
            for tensor, way in zip(trained, ways, strict=True):
                tensor.add_(step * way)
            value = float(score())
            for tensor, way in zip(trained, ways, strict=True):
                tensor.sub_(step * way)
        return value

    gradients = torch.autograd.grad(score(), trained)
    slope = sum(float((g * w).sum()) for g, w in zip(gradients, ways, strict=True))
    assert (at(1e-6) - at(-1e-6)) / 2e-6 == pytest.approx(slope, rel=1e-5)
    assert all(g.norm() > 0 for g in gradients)


def test_one_layer_has_no_map_that_nothing_reads(clip: FrozenClip) -> None:
    names = make(clip, method="mudpt", depth=1).arrays().keys()
    assert names == {"text.0", "visual.0", "maps.E.weight", "maps.E.bias"}


def test_a_frozen_map_is_not_trained_not_sent_and_not_stored(clip: FrozenClip) -> None:
    prompt = moved(clip, **FROZEN)
    assert not any("maps" in name for name in prompt.arrays() | prompt.frozen_arrays())
    frozen = numbers(prompt.host._frozen[0])
    before = {name: array.copy() for name, array in frozen.items()}
    prompt.backward(encoded(clip, prompt), torch.zeros(6, dtype=torch.int64), None)
    assert all(p.grad is not None for p in prompt.parameters())
    assert all(p.grad is None for p in prompt.host._frozen[0].parameters())
    assert all(np.array_equal(frozen[name], before[name]) for name in frozen)


def test_frozen_maps_are_the_seeds_and_nothing_elses(clip: FrozenClip) -> None:
    def digest(**config) -> str:
        return make(clip, **FROZEN, **config).describe()["maps_sha256"]

    assert digest() == digest(form="lowrank") == digest(init="random", tokens=2)
    assert digest(seed=1) != digest()
    drawn = numbers(make(clip, **FROZEN, init="random", tokens=2).host._frozen[0])
    trained = {n.removeprefix("maps."): a for n, a in make(clip, method="mudpt").arrays().items()}
    assert all(np.array_equal(array, trained[name]) for name, array in drawn.items())


def test_sites_that_draw_other_maps_do_not_meet(clip: FrozenClip) -> None:
    def card(**config) -> str:
        return identity_card(clip, make(clip, **FROZEN, **config), NAMES, TEMPLATE)["method"]

    assert card() == card()
    assert card() != card(seed=1)
    assert card() != card(maps="transformer")


@pytest.mark.parametrize("changed", [{"prompt_seed": 6}, {"maps_sha256": "0" * 16}])
def test_an_artefact_with_other_maps_is_refused(clip: FrozenClip, changed: dict) -> None:
    artefact, _ = round_trip(clip, moved(clip, **FROZEN, seed=5))
    artefact.metadata.update(changed)
    with pytest.raises(ArtefactError, match="tuned with frozen maps of hash"):
        from_artefact(artefact, clip)
