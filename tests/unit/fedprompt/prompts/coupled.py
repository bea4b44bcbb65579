"""What the tests of coupled hosts share: matrices by their equation, float64, ViT-B/16's widths."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fedprompt.artefact import Artefact
from fedprompt.backbone.clip import FrozenClip
from fedprompt.backbone.encoded import Encoded
from fedprompt.prompts.artefacts import from_artefact, to_artefact
from fedprompt.prompts.build import recipe_of
from fedprompt.prompts.forms import form_maker
from fedprompt.prompts.host import Material
from fedprompt.prompts.methods import prompt_config, settings_model
from fedprompt.prompts.prompted import PromptedClip
from fedprompt.prompts.recipe import Recipe
from tests.conftest import tiny_clip
from tests.unit.fedprompt.prompts import naive
from tests.unit.fedprompt.prompts.hosts import EXACT, IMAGES, NAMES, TEMPLATE, moved


def tensors(prompt: PromptedClip) -> dict[str, Tensor]:
    """Return a host's trained and frozen tensors by name."""
    return dict(prompt.host.named_parameters()) | dict(prompt.host.named_buffers())


def matrix(prompt: PromptedClip, name: str) -> Tensor:
    """Return a matrix by its form's equation: P, or P0 + A B."""
    own = tensors(prompt)
    if f"{name}.matrix" in own:
        return own[f"{name}.matrix"]
    return own[f"{name}.start"] + own[f"{name}.A"] @ own[f"{name}.B"]


def plain_features(
    clip: FrozenClip, images: Tensor, texts: list[Tensor], visuals: list[Tensor]
) -> tuple[Tensor, Tensor]:
    """Return unit image features and class vectors by naive insertion of given tokens."""
    features = naive.image_features(clip, images, visuals)
    return features, naive.class_vectors(clip, NAMES, ".", texts)


def moved64(**config: Any) -> tuple[FrozenClip, PromptedClip]:
    """Return a tiny CLIP and a method away from its start, all in float64."""
    clip = tiny_clip().double()
    return clip, moved(clip, **config).double()


def check_gradients64(clip: FrozenClip, prompt: PromptedClip, tokens: Any) -> None:
    """Compare a method's features and gradients with naive insertion of ``tokens()``.

    In float64, where the fast towers differ from the plain ones by rounding alone.
    """
    images = IMAGES.double()
    with torch.no_grad():
        features = F.normalize(clip.encode_image(images), dim=-1)
        rows = clip.image.activations(images, prompt.first_layer or 0)
    answer = prompt(Encoded(features, rows))
    expected = plain_features(clip, images, *tokens())
    draws = torch.Generator().manual_seed(5)
    weights = [torch.randn(e.shape, generator=draws, dtype=e.dtype) for e in expected]
    trained = list(prompt.parameters())

    def gradients(found: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        total = sum((one * weight).sum() for one, weight in zip(found, weights, strict=True))
        return torch.autograd.grad(total, trained)

    found = (answer.features, answer.vectors)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=EXACT, atol=EXACT)
    for one, other in zip(gradients(found), gradients(expected), strict=True):
        assert other.norm() > 0
        assert (one - other).norm() <= EXACT * other.norm()


def round_trip(clip: FrozenClip, prompt: PromptedClip) -> tuple[Artefact, PromptedClip]:
    """Return a prompt's artefact and what is made of it, having checked that nothing changed."""
    artefact = to_artefact(clip, prompt, NAMES, TEMPLATE, round=3, seed=11)
    found = from_artefact(artefact, clip)
    assert isinstance(found, PromptedClip)
    assert found.describe() == prompt.describe()
    for name, array in (prompt.arrays() | prompt.frozen_arrays()).items():
        assert np.array_equal((found.arrays() | found.frozen_arrays())[name], array)
    old, new = prompt.fold(), found.fold()
    assert torch.equal(new.class_vectors, old.class_vectors)
    assert torch.equal(new.visual.tokens, old.visual.tokens)
    return artefact, found


def trained_in(method: str, texts: int = 12, images: int = 12, **config: Any) -> list[Tensor]:
    """Return what a host trains at ViT-B/16's widths, in so many blocks; no tower is built."""
    start = {"init": "random"} if "init" in settings_model(method).model_fields else {}
    settings = prompt_config(**{**start, "method": method, **config})
    clip = tiny_clip()
    draws = torch.Generator().manual_seed(0)
    text = {"width": 512, "blocks": range(texts), "embedding": torch.zeros(1, 512)}
    image = {"width": 768, "blocks": range(images)}
    projections = [torch.randn(width, 512, generator=draws) / 30 for width in (512, 768)]
    text["owner"] = SimpleNamespace(text_projection=projections[0])
    image["visual"] = SimpleNamespace(
        proj=projections[1],
        class_embedding=torch.ones(768),
        positional_embedding=torch.ones(197, 768),
    )
    vars(clip).update(text=SimpleNamespace(**text), image=SimpleNamespace(**image))
    recipe = recipe_of(method)
    assert isinstance(recipe, Recipe)
    form = form_maker(settings.form or recipe.form, settings.rank, 0.0)
    host = recipe.host(
        Material(
            clip=clip, config=settings, template=TEMPLATE, form=form, generator=draws, classes=5,
            any_start=True,
        )
    )  # fmt: skip
    return [tensor for tensor in host.parameters() if tensor.requires_grad]


def sent_by_vit_b16(method: str, **config: Any) -> int:
    """Return how many numbers a host sends at ViT-B/16's widths and depths."""
    return sum(tensor.numel() for tensor in trained_in(method, **config))
