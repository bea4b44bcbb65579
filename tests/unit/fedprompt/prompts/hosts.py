"""Build a host's method on the tiny CLIP, move it off its start, and compare gradients."""

from typing import Any

import torch
from torch.nn import functional as F

from fedprompt.backbone.clip import FrozenClip
from fedprompt.backbone.encoded import Encoded
from fedprompt.prompts.build import build_prompt
from fedprompt.prompts.methods import prompt_config
from fedprompt.prompts.prompted import PromptedClip
from tests.prompts import stir

NAMES = ("great grey owl", "great white shark", "tench", "sea", "maple tree")
TEMPLATE = "a photo of a {}."
IMAGES = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 3, 4, 0])
EXACT = 1e-9  # in float64, where a right formula differs by the last digits alone


def make(clip: FrozenClip, **config: Any) -> PromptedClip:
    """Return a method at its start, without dropout."""
    settings = prompt_config(**{"dropout": 0.0, **config})
    prompt = build_prompt(settings, clip, NAMES, TEMPLATE)
    assert isinstance(prompt, PromptedClip)
    return prompt.to(clip.text.embedding.dtype)


def moved(clip: FrozenClip, seed: int = 0, spread: float = 0.3, **config: Any) -> PromptedClip:
    """Return a method away from its start."""
    prompt = make(clip, **config)
    stir(prompt, seed, spread)
    return prompt


def encoded(clip: FrozenClip, prompt: PromptedClip) -> Encoded:
    """Return the images as a site keeps them for this method."""
    with torch.no_grad():
        images = IMAGES.to(clip.text.embedding)
        features = F.normalize(clip.encode_image(images), dim=-1)
        layer = prompt.first_layer
        rows = None if layer is None else clip.image.activations(images, layer)
    return Encoded(features, rows)


def check_gradients(prompt: PromptedClip, images: Encoded, plain_logits: Any) -> None:
    """Compare the fast towers' logits and gradients with those of a plain computation in float64.

    ``plain_logits`` computes logits from the same trained tensors, images and labels.
    """
    expected = plain_logits()
    assert expected.dtype == torch.float64
    trained = list(prompt.parameters())
    wanted = torch.autograd.grad(F.cross_entropy(expected, LABELS), trained)
    prompt.zero_grad()
    loss = prompt.backward(images, LABELS, None)
    torch.testing.assert_close(prompt(images).logits, expected, rtol=EXACT, atol=EXACT)
    assert abs(loss - float(F.cross_entropy(expected.detach(), LABELS))) < EXACT
    for parameter, gradient in zip(trained, wanted, strict=True):
        assert gradient.norm() > 0
        assert (parameter.grad - gradient).norm() <= EXACT * gradient.norm()
