import pytest
import torch
from torch.nn import functional as F

from fedprompt.backbone.clip import FrozenClip
from fedprompt.prompts.methods import prompt_config
from fedprompt.prompts.objectives.promptsrc import TEMPLATES
from tests.unit.fedprompt.prompts.hosts import LABELS, NAMES, encoded, make, moved
from tests.unit.fedprompt.prompts.objectives.plain import (
    check,
    cross_entropy,
    divergence,
    frozen,
    tuned,
)


def diverse(clip: FrozenClip) -> torch.Tensor:
    """Return the mean of the templates' features as they are, made of length one in the end."""
    total = torch.zeros(len(NAMES), 24).to(clip.text.embedding)
    with torch.no_grad():
        for template in TEMPLATES:
            texts = clip.tokenizer([template.replace("{}", name) for name in NAMES])
            total += clip.model.encode_text(texts) / 60
    return F.normalize(total, dim=-1)


@pytest.mark.parametrize("form", ["full", "lowrank"])
@pytest.mark.parametrize("factor", [1.0, 0.5])
@pytest.mark.parametrize("teacher", ["diverse", "template"])
def test_features_and_logits_are_held_to_the_frozen_ones(
    clip64: FrozenClip, form: str, factor: float, teacher: str
) -> None:
    settings = {"depth": 2, "regularisation": factor, "teacher": teacher}
    prompt = moved(clip64, method="promptsrc", form=form, **settings)
    (features, vectors), (images, texts) = tuned(clip64, prompt), frozen(clip64)
    texts = diverse(clip64) if teacher == "diverse" else texts
    logits, known = (
        clip64.logit_scale * features @ vectors.T,
        clip64.logit_scale * images @ texts.T,
    )
    loss = cross_entropy(logits)
    text = 25 * (vectors - texts).abs().mean()
    image = 10 * (features - images).abs().mean()
    apart = text + image + divergence(known, logits).sum() / logits.numel()
    wanted = torch.autograd.grad(loss + factor * apart, list(prompt.parameters()))
    found = prompt.backward(encoded(clip64, prompt), LABELS, None)
    check(prompt, found, loss, wanted)


def test_the_published_teacher_is_the_default(clip: FrozenClip) -> None:
    assert prompt_config().teacher == "diverse"
    assert len(TEMPLATES) == len(set(TEMPLATES)) == 60
    assert all(template.count("{}") == 1 for template in TEMPLATES)
    assert {"a photo of a {}.", "the toy {}.", "itap of the {}."} < set(TEMPLATES)
    prompt = make(clip, method="promptsrc")
    found = prompt.diverse_vectors(TEMPLATES)
    torch.testing.assert_close(found, diverse(clip), rtol=1e-5, atol=1e-6)
    assert (found - prompt.zero_shot).abs().max() > 0.01


def test_the_templates_are_encoded_once_for_all_sites_of_a_process(clip: FrozenClip) -> None:
    one, other = (make(clip, method="promptsrc", seed=seed) for seed in (0, 1))
    assert one.diverse_vectors(TEMPLATES) is other.diverse_vectors(TEMPLATES)
