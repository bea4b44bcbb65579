"""Build a head's method on the tiny CLIP and move it off its start."""

from typing import Any

import torch
from torch.nn import functional as F

from fedprompt.backbone.clip import FrozenClip
from fedprompt.backbone.encoded import Encoded
from fedprompt.prompts.build import build_prompt
from fedprompt.prompts.headed import HeadedClip
from fedprompt.prompts.methods import prompt_config
from tests.prompts import stir
from tests.unit.fedprompt.prompts.hosts import EXACT, IMAGES, LABELS, NAMES, TEMPLATE


def make(clip: FrozenClip, **config: Any) -> HeadedClip:
    """Return a head's method at its start, without dropout."""
    prompt = build_prompt(prompt_config(**{"dropout": 0.0, **config}), clip, NAMES, TEMPLATE)
    assert isinstance(prompt, HeadedClip)
    return prompt.to(clip.text.embedding.dtype)


def moved(clip: FrozenClip, spread: float = 0.3, **config: Any) -> HeadedClip:
    """Return a head's method away from its start."""
    prompt = make(clip, **config)
    stir(prompt, spread=spread)
    return prompt


def images(clip: FrozenClip) -> Encoded:
    """Return the images' unit features."""
    with torch.no_grad():
        images = IMAGES.to(clip.text.embedding)
        return Encoded(F.normalize(clip.model.encode_image(images), dim=-1))


def zero_shot(clip: FrozenClip) -> torch.Tensor:
    """Return the template's unit class vectors from open_clip alone."""
    texts = [TEMPLATE.replace("{}", name) for name in NAMES]
    with torch.no_grad():
        return F.normalize(clip.model.encode_text(clip.tokenizer(texts)), dim=-1)


def matrix(prompt: HeadedClip, name: str) -> torch.Tensor:
    """Return a matrix by its form's equation: P, or P0 + A B."""
    own = dict(prompt.head.named_parameters()) | dict(prompt.head.named_buffers())
    if f"{name}.matrix" in own:
        return own[f"{name}.matrix"]
    return own[f"{name}.start"] + own[f"{name}.A"] @ own[f"{name}.B"]


def check_gradients(prompt: HeadedClip, batch: Encoded, expected: torch.Tensor) -> None:
    """Compare logits, loss and gradients with those of a plain computation in float64."""
    assert expected.dtype == torch.float64
    trained = list(prompt.parameters())
    loss = -expected.log_softmax(1)[torch.arange(len(LABELS)), LABELS].mean()
    wanted = torch.autograd.grad(loss, trained)
    prompt.zero_grad()
    found = prompt.backward(batch, LABELS, None)
    assert abs(found - float(loss.detach())) < EXACT
    torch.testing.assert_close(prompt(batch).logits, expected, rtol=EXACT, atol=EXACT)
    for parameter, gradient in zip(trained, wanted, strict=True):
        assert gradient.norm() > 0
        assert (parameter.grad - gradient).norm() <= EXACT * gradient.norm()
