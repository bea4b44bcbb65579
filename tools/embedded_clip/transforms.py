"""Named image transforms: each changes a batch of images in a way that words can say.

A prompt is nothing but context, so the text tower must learn that context moves the vector. Every
transform here therefore has phrases; ``captions.py`` puts them before or after the class name.
Images are float ``(b, 3, 64, 64)`` in [0, 255]; a generator makes the random ones repeatable.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

Transform = Callable[[Tensor, Generator], Tensor]


def _resample(x: Tensor, theta: Tensor) -> Tensor:
    grid = F.affine_grid(theta.expand(len(x), 2, 3), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def _affine(a: float, b: float, c: float, d: float) -> Transform:
    theta = torch.tensor([[a, b, 0.0], [c, d, 0.0]])
    return lambda x, _: _resample(x, theta)


def random_crop(x: Tensor, generator: Generator, smallest: float = 0.6) -> Tensor:
    """Crop a random window of at least ``smallest`` of the side, and mirror half of the images."""
    side = smallest + (1 - smallest) * torch.rand(len(x), 2, generator=generator)
    shift = (1 - side) * (2 * torch.rand(len(x), 2, generator=generator) - 1)
    mirror = torch.where(torch.rand(len(x), generator=generator) < 0.5, -1.0, 1.0)
    theta = torch.zeros(len(x), 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = side[:, 0] * mirror, side[:, 1]
    theta[:, :, 2] = shift
    return _resample(x, theta)


def foreground(x: Tensor) -> Tensor:
    """Estimate a foreground mask ``(b, 1, h, w)``: what differs from the border, inside a disc."""
    ring = torch.cat([x[..., :2, :].flatten(2), x[..., -2:, :].flatten(2)], dim=2)
    sides = torch.cat([x[..., :2].flatten(2), x[..., -2:].flatten(2)], dim=2)
    colour = torch.cat([ring, sides], dim=2).mean(dim=2)[..., None, None]
    distance = (x - colour).abs().mean(dim=1, keepdim=True)
    mask = (distance > 0.9 * distance.mean(dim=(2, 3), keepdim=True)).float()
    mask = F.avg_pool2d(mask, 9, stride=1, padding=4) > 0.45
    line = torch.linspace(-1, 1, x.shape[-1])
    disc = (line[:, None] ** 2 + line[None] ** 2) < 1.1
    return F.avg_pool2d((mask & disc).float(), 3, stride=1, padding=1)


def _behind(value: float) -> Transform:
    def paint(x: Tensor, _: Generator) -> Tensor:
        mask = foreground(x)
        return x * mask + value * (1 - mask)

    return paint


def _tiny(x: Tensor, _: Generator) -> Tensor:
    small = F.interpolate(x, 32, mode="bilinear", antialias=True)
    colour = x.mean(dim=(2, 3), keepdim=True).expand_as(x).clone()
    colour[..., 16:48, 16:48] = small
    return colour


def _scrambled(x: Tensor, generator: Generator) -> Tensor:
    tiles = x.unfold(2, 16, 16).unfold(3, 16, 16).flatten(2, 3)
    order = torch.randperm(16, generator=generator)
    tiles = tiles[:, :, order].unflatten(2, (4, 4))
    return tiles.permute(0, 1, 2, 4, 3, 5).reshape(x.shape)


def _blur(x: Tensor, _: Generator) -> Tensor:
    return F.interpolate(F.interpolate(x, 14, mode="area"), 64, mode="bicubic").clamp(0, 255)


def _pixelate(x: Tensor, _: Generator) -> Tensor:
    return F.interpolate(F.interpolate(x, 16, mode="area"), 64, mode="nearest")


def _edges(x: Tensor, _: Generator) -> Tensor:
    grey = F.pad(x.mean(dim=1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    dx = grey[..., 1:-1, 2:] - grey[..., 1:-1, :-2]
    dy = grey[..., 2:, 1:-1] - grey[..., :-2, 1:-1]
    return (255 - 2 * (dx.square() + dy.square()).sqrt()).clamp(0, 255).expand_as(x)


def _noise(x: Tensor, generator: Generator) -> Tensor:
    return (x + 45 * torch.randn(x.shape, generator=generator)).clamp(0, 255)


def _silhouette(x: Tensor, _: Generator) -> Tensor:
    return (255 * (1 - foreground(x))).expand_as(x)


def _posterise(x: Tensor, _: Generator) -> Tensor:
    return (x / 85).round() * 85


def _grey(x: Tensor, _: Generator) -> Tensor:
    weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    return (x * weights).sum(dim=1, keepdim=True).expand_as(x)


def _tint(red: float, green: float, blue: float) -> Transform:
    colour = torch.tensor([red, green, blue]).view(1, 3, 1, 1)
    return lambda x, g: (_grey(x, g) * colour).clamp(0, 255)


def _tone(scale: float, offset: float) -> Transform:
    return lambda x, _: (scale * x + offset).clamp(0, 255)


def _contrast(x: Tensor, _: Generator) -> Tensor:
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    return (mean + 2.5 * (x - mean)).clamp(0, 255)


GROUPS: tuple[tuple[tuple[str, Transform], ...], ...] = (
    (
        ("close-up", _affine(0.5, 0, 0, 0.5)),
        ("rotated", _affine(0, 1, -1, 0)),
        ("upside-down", _affine(-1, 0, 0, -1)),
        ("tiny", _tiny),
        ("wide", _affine(1, 0, 0, 1.8)),
        ("tall", _affine(1.8, 0, 0, 1)),
        ("scrambled", _scrambled),
    ),
    (("on-black", _behind(0.0)), ("on-white", _behind(255.0)), ("on-grey", _behind(128.0))),
    (
        ("blurred", _blur),
        ("pixelated", _pixelate),
        ("sketch", _edges),
        ("noisy", _noise),
        ("silhouette", _silhouette),
        ("posterised", _posterise),
    ),
    (
        ("greyscale", _grey),
        ("red", _tint(1.3, 0.35, 0.35)),
        ("green", _tint(0.35, 1.2, 0.35)),
        ("blue", _tint(0.35, 0.5, 1.4)),
        ("sepia", _tint(1.15, 0.95, 0.7)),
    ),
    (
        ("dark", _tone(0.3, 0.0)),
        ("bright", _tone(0.6, 110.0)),
        ("inverted", _tone(-1.0, 255.0)),
        ("faded", _tone(0.35, 85.0)),
        ("contrast", _contrast),
    ),
)
"""One member of each group at most is applied, in the order of the groups."""

CHANCE = (0.35, 0.35, 0.25, 0.4, 0.25)
"""How likely an image gets some member of each group."""


def draw_codes(count: int, generator: Generator) -> Tensor:
    """Draw which transforms each image gets: ``(count, groups)``, 0 = none, i = i-th member."""
    columns = []
    for members, chance in zip(GROUPS, CHANCE, strict=True):
        member = torch.randint(1, len(members) + 1, (count,), generator=generator)
        some = torch.rand(count, generator=generator) < chance
        columns.append(torch.where(some, member, torch.zeros_like(member)))
    return torch.stack(columns, dim=1)


def apply_codes(images: Tensor, codes: Tensor, generator: Generator) -> Tensor:
    """Apply the coded transforms to float images ``(b, 3, 64, 64)`` and return new ones."""
    images = images.clone()
    for group, members in enumerate(GROUPS):
        for number, (_, transform) in enumerate(members, start=1):
            chosen = codes[:, group] == number
            if chosen.any():
                images[chosen] = transform(images[chosen], generator)
    return images
