"""Start the image tower near what trained ones look like, which saves much of a short training."""

import math

import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn


def normalised(images: Tensor) -> Tensor:
    """Scale uint8 images to [-1, 1], the embedded model's preprocessing."""
    return images.float() / 127.5 - 1


@torch.no_grad()
def start_patches(visual: VisionTransformer, images: Tensor) -> None:
    """Start the patch embedding at whitened principal components of training patches."""
    patches = normalised(images).unfold(2, 8, 8).unfold(3, 8, 8)
    patches = patches.permute(0, 2, 3, 1, 4, 5).reshape(-1, 192)
    values, vectors = torch.linalg.eigh(torch.cov((patches - patches.mean(dim=0)).T))
    scale = (values + 1e-3 * values.max()).rsqrt()
    weight = (vectors * scale).T.flip(0)
    visual.conv1.weight.copy_(weight.reshape(visual.conv1.weight.shape))


def sine_positions(side: int, width: int) -> Tensor:
    """Make two-dimensional sine positions ``(side * side, width)``."""
    rates = 1 / 100 ** (torch.arange(width // 4) / (width // 4))
    angles = torch.arange(side)[:, None] * rates
    line = torch.cat([angles.sin(), angles.cos()], dim=1)
    rows = line[:, None].expand(side, side, -1)
    columns = line[None].expand(side, side, -1)
    return torch.cat([rows, columns], dim=2).reshape(side * side, width)


@torch.no_grad()
def start_attention(attention: nn.MultiheadAttention) -> None:
    """Start the query-key product near 0.7 I and value-output near -0.4 I, plus noise.

    Mimetic initialisation, Trockman and Kolter 2023, arXiv 2305.09828.
    """
    width, heads = attention.embed_dim, attention.num_heads
    size, eye = width // heads, torch.eye(width)
    weight = attention.in_proj_weight
    for head in range(heads):
        product = 0.7 * eye + 0.7 * torch.randn(width, width) / math.sqrt(width)
        left, scales, right = torch.linalg.svd(product)
        root = scales[:size].sqrt()[:, None]
        weight[head * size : (head + 1) * size] = root * left.T[:size]
        weight[width + head * size : width + (head + 1) * size] = root * right[:size]
    product = 0.4 * torch.randn(width, width) / math.sqrt(width) - 0.4 * eye
    left, scales, right = torch.linalg.svd(product)
    weight[2 * width :] = scales.sqrt()[:, None] * right
    attention.out_proj.weight.copy_(left * scales.sqrt())


def start(visual: VisionTransformer, images: Tensor) -> None:
    """Initialise an image tower from some training images ``(n, 3, 64, 64)`` uint8."""
    start_patches(visual, images)
    with torch.no_grad():
        visual.positional_embedding[1:] = 0.5 * sine_positions(8, 192)
        visual.positional_embedding[0] = 0
        visual.class_embedding.normal_(std=0.5)
    for block in visual.transformer.resblocks:
        start_attention(block.attn)
