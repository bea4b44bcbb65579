"""What the objectives' tests compare with: plain towers, and losses written out."""

import torch
from torch import Tensor
from torch.nn import functional as F

from fedprompt.backbone.clip import FrozenClip
from fedprompt.prompts.prompted import PromptedClip
from tests.unit.fedprompt.prompts import naive
from tests.unit.fedprompt.prompts.hosts import EXACT, IMAGES, LABELS, NAMES, TEMPLATE


def frozen(clip: FrozenClip) -> tuple[Tensor, Tensor]:
    """Return unit image features and class vectors of open_clip's own towers."""
    texts = [TEMPLATE.replace("{}", name) for name in NAMES]
    with torch.no_grad():
        vectors = F.normalize(clip.model.encode_text(clip.tokenizer(texts)), dim=-1)
        images = IMAGES.to(clip.text.embedding)
        return F.normalize(clip.model.encode_image(images), dim=-1), vectors


def tuned(clip: FrozenClip, prompt: PromptedClip) -> tuple[Tensor, Tensor]:
    """Return unit image features and class vectors under the prompt, by hooks."""
    features, _ = frozen(clip)
    side = matrices(prompt, "visual")
    if side:
        features = naive.image_features(clip, IMAGES.to(features), side)
    context = matrices(prompt, "ctx") or matrices(prompt, "text")
    return features, naive.class_vectors(clip, NAMES, ".", context)


def matrices(prompt: PromptedClip, side: str) -> list[Tensor]:
    """Return one side's prompts by their equation: P, or P0 + A B."""
    arrays = dict(prompt.host.named_parameters()) | dict(prompt.host.named_buffers())
    stems = dict.fromkeys(n.rpartition(".")[0] for n in arrays if n.partition(".")[0] == side)
    found = []
    for stem in stems:
        if f"{stem}.matrix" in arrays:
            found.append(arrays[f"{stem}.matrix"])
        else:
            found.append(arrays[f"{stem}.start"] + arrays[f"{stem}.A"] @ arrays[f"{stem}.B"])
    return found


def cross_entropy(logits: Tensor) -> Tensor:
    """Return -mean log softmax at the labels."""
    shares = logits.exp() / logits.exp().sum(1, keepdim=True)
    return -shares[torch.arange(len(LABELS)), LABELS].log().mean()


def divergence(known: Tensor, logits: Tensor) -> Tensor:
    """Return KL(softmax known || softmax logits) of each image."""
    p, q = known.softmax(1), logits.softmax(1)
    return (p * (p / q).log()).sum(1)


def check(prompt: PromptedClip, found: float, loss: Tensor, wanted: list[Tensor]) -> None:
    """Compare what an objective left with the plain loss's value and gradients."""
    bound = EXACT if loss.dtype == torch.float64 else 1e-4
    assert abs(found - float(loss.detach())) < bound
    for parameter, gradient in zip(prompt.parameters(), wanted, strict=True):
        assert parameter.grad is not None
        assert gradient.norm() > 0
        assert (parameter.grad - gradient).norm() <= bound * gradient.norm()
