from pathlib import Path

import numpy as np
import pytest
import torch

from fedprompt.artefact import Artefact
from fedprompt.backbone.clip import FrozenClip
from fedprompt.errors import PromptError
from fedprompt.identity_card import identity_card
from fedprompt.prompts import spt as module
from fedprompt.prompts.artefacts import from_artefact, to_artefact
from fedprompt.prompts.build import Prompt, build_prompt
from fedprompt.prompts.methods import prompt_config
from fedprompt.prompts.public_images import public_pixels
from tests.pictures import image_folder
from tests.unit.fedprompt.prompts import naive
from tests.unit.fedprompt.prompts.hosts import (
    IMAGES,
    NAMES,
    TEMPLATE,
    check_gradients,
    encoded,
    make,
    moved,
)
from tests.unit.fedprompt.prompts.test_vpt import matrices, zero_shot


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(image_folder(tmp_path_factory.mktemp("public") / "photos", ("cat", "dog"), 6))


@pytest.fixture(autouse=True)
def fresh() -> None:
    module._prototypes.cache_clear()


def start(prompt: Prompt) -> list[np.ndarray]:
    return list(prompt.arrays().values())


def tokens(clip: FrozenClip, photos: str, layer: int) -> np.ndarray:
    """Return the patch tokens of all public images that enter a block, by hooks on open_clip."""
    visual, seen = clip.model.visual, []
    module = visual.conv1 if layer == 0 else visual.transformer.resblocks[layer - 1]
    hook = module.register_forward_hook(lambda _m, _i, out: seen.append(out))
    pixels = public_pixels(photos, 100, clip.preprocessing, 0)
    visual(clip.normalise(pixels))
    hook.remove()
    rows = seen[0].flatten(2).transpose(1, 2) if layer == 0 else seen[0][:, 1:]
    return rows.reshape(-1, 48).numpy()


@pytest.mark.parametrize("first", [0, 1])
def test_sampled_starts_are_tokens_that_enter_their_block(
    clip: FrozenClip, photos: str, first: int
) -> None:
    prompt = make(clip, method="spt", start="random", public=photos, first_layer=first, tokens=5)
    found = start(prompt)
    assert [array.shape for array in found] == [(5, 48)] * (3 - first)
    for layer, array in enumerate(found, first):
        distance = np.abs(array[:, None] - tokens(clip, photos, layer)).max(-1).min(1)
        assert distance.max() < 2e-3 * np.abs(array).max()


@pytest.mark.parametrize(("how", "over"), [("mean", np.mean), ("max", np.max)])
def test_pooled_starts_pool_windows_of_an_image(
    clip: FrozenClip, photos: str, how: str, over
) -> None:
    """4 tokens: three windows of 5 of an image's 16, and its last token."""
    prompt = make(clip, method="spt", start=how, public=photos, tokens=4)
    for layer, array in enumerate(start(prompt)):
        images = tokens(clip, photos, layer).reshape(12, 16, 48)
        parts = [images[:, 0:5], images[:, 5:10], images[:, 10:15], images[:, 15:]]
        candidates = np.concatenate([over(part, axis=1) for part in parts])
        distance = np.abs(array[:, None] - candidates).max(-1).min(1)
        assert distance.max() < 2e-3 * np.abs(array).max()


def test_clustered_starts_are_means_of_the_tokens_next_to_them(
    clip: FrozenClip, photos: str
) -> None:
    prompt = make(clip, method="spt", public=photos, tokens=4)
    for layer, array in enumerate(start(prompt)):
        points = tokens(clip, photos, layer)
        nearest = ((points[:, None] - array) ** 2).sum(-1).argmin(1)
        assert set(nearest) == set(range(4))
        means = np.stack([points[nearest == i].mean(0) for i in range(4)])
        assert np.abs(means - array).max() < 0.05 * np.abs(points).max()


@pytest.mark.parametrize("form", ["full", "lowrank"])
def test_logits_and_gradients_equal_a_naive_insertion(
    clip64: FrozenClip, photos: str, form: str
) -> None:
    prompt = moved(clip64, method="spt", form=form, public=photos, tokens=3, rank=2)
    images = encoded(clip64, prompt)

    def plain() -> torch.Tensor:
        features = naive.image_features(clip64, IMAGES.double(), matrices(prompt), 0)
        return clip64.logit_scale * features @ zero_shot(clip64).T

    check_gradients(prompt, images, plain)


def test_lengths_are_the_papers_deep_and_shallow(clip: FrozenClip) -> None:
    def shapes(**config: object) -> list[tuple[int, ...]]:
        settings = prompt_config(method="spt", **config)
        prompt = build_prompt(settings, clip, NAMES, TEMPLATE, any_start=True)
        return [array.shape for array in start(prompt)]

    assert shapes() == [(20, 48)] * 3
    assert shapes(depth=2) == [(20, 48)] * 2
    assert shapes(depth=1) == [(100, 48)]
    assert shapes(depth=1, tokens=7) == [(7, 48)]


def test_equal_images_and_seeds_give_equal_bytes(clip: FrozenClip, photos: str) -> None:
    def bytes_of(**config: object) -> list[bytes]:
        module._prototypes.cache_clear()
        prompt = make(clip, method="spt", public=photos, tokens=4, start_images=7, **config)
        return [array.tobytes() for array in start(prompt)]

    assert bytes_of() == bytes_of()
    assert bytes_of(seed=1) != bytes_of()
    assert bytes_of(start="random") != bytes_of()


def test_without_public_images_nobody_starts_unless_any_start_will_do(clip: FrozenClip) -> None:
    with pytest.raises(PromptError, match=r"prompt\.public is empty: name a data source"):
        make(clip, method="spt")
    settings = prompt_config(method="spt", tokens=4)
    found = start(build_prompt(settings, clip, NAMES, TEMPLATE, any_start=True))
    assert 0.015 < np.std(found) < 0.025


def test_a_site_reads_no_images_for_a_start_that_is_sent_to_it(
    clip: FrozenClip, tmp_path: Path
) -> None:
    """The server's folder is not there; its name must not stop a site."""
    settings = prompt_config(method="spt", public=str(tmp_path / "servers-own"), tokens=4)
    build_prompt(settings, clip, NAMES, TEMPLATE, any_start=True)


def test_in_form_lowrank_the_start_is_frozen_and_part_of_the_identity(
    clip: FrozenClip, photos: str, tmp_path: Path
) -> None:
    def card(public: str, form: str = "lowrank") -> str:
        settings = prompt_config(method="spt", form=form, public=public, tokens=4)
        prompt = build_prompt(settings, clip, NAMES, TEMPLATE, any_start=True)
        return identity_card(clip, prompt, NAMES, TEMPLATE)["method"]

    other = str(image_folder(tmp_path / "other", ("cat", "dog", "owl"), 3))
    assert card(photos) == card(photos)
    assert card(other) != card(photos) != card("")
    assert card(other, "full") == card("", "full")


@pytest.mark.parametrize("form", ["full", "lowrank"])
def test_it_comes_back_from_its_artefact_without_the_images(
    clip: FrozenClip, photos: str, form: str
) -> None:
    prompt = moved(clip, method="spt", form=form, public=photos, tokens=4, depth=2)
    artefact: Artefact = to_artefact(clip, prompt, NAMES, TEMPLATE, round=1, seed=0)
    assert "public" not in artefact.metadata
    found = from_artefact(artefact, clip)
    assert found.describe() == prompt.describe()
    assert found.describe()["method"] == "spt"
    expected = prompt.fold().visual.tokens
    assert torch.equal(found.fold().visual.tokens, expected)
