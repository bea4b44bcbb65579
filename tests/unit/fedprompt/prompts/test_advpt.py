import pytest
import torch

from fedprompt.artefact import Artefact
from fedprompt.backbone.clip import FrozenClip
from fedprompt.prompts.artefacts import from_artefact, to_artefact
from fedprompt.prompts.build import bank_of
from tests.unit.fedprompt.prompts import naive
from tests.unit.fedprompt.prompts.hosts import (
    NAMES,
    TEMPLATE,
    check_gradients,
    encoded,
    make,
    moved,
)


def test_it_starts_at_32_random_vectors(clip: FrozenClip) -> None:
    ctx = make(clip, method="advpt").arrays()["ctx"]
    assert ctx.shape == (32, 32)
    assert 0.018 < ctx.std() < 0.022
    other = make(clip, method="advpt", seed=1).arrays()["ctx"]
    assert abs(ctx - other).max() > 0.01


def test_other_lengths_and_words_are_the_settings_to_choose(clip: FrozenClip) -> None:
    assert make(clip, method="advpt", tokens=5).arrays()["ctx"].shape == (5, 32)
    words = make(clip, method="advpt", init="a photo of a").arrays()["ctx"]
    coop = make(clip, method="coop").arrays()["ctx"]
    assert (words == coop).all()


@pytest.mark.parametrize("form", ["full", "lowrank"])
def test_logits_and_gradients_equal_a_naive_insertion(clip64: FrozenClip, form: str) -> None:
    prompt = moved(clip64, method="advpt", form=form, tokens=6, rank=2)
    images = encoded(clip64, prompt)

    def plain() -> torch.Tensor:
        host = prompt.host.ctx
        ctx = host.matrix if form == "full" else host.start + host.A @ host.B
        vectors = naive.class_vectors(clip64, NAMES, ".", [ctx])
        return clip64.logit_scale * images.features @ vectors.T

    check_gradients(prompt, images, plain)


def test_it_says_that_it_trains_on_attacked_images() -> None:
    assert bank_of("advpt") == "adversarial"
    assert bank_of("coop") == bank_of("template") == "clean"


@pytest.mark.parametrize("form", ["full", "lowrank"])
def test_it_comes_back_from_its_artefact(clip: FrozenClip, form: str) -> None:
    prompt = moved(clip, method="advpt", form=form)
    artefact: Artefact = to_artefact(clip, prompt, NAMES, TEMPLATE, round=1, seed=0)
    found = from_artefact(artefact, clip)
    assert found.describe() == prompt.describe()
    assert found.describe()["method"] == "advpt"
    assert torch.equal(found.class_vectors(), prompt.class_vectors())
