"""Read the tensors of a plain open_clip VisionTransformer, layer scale folded in."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

Array = npt.NDArray[np.float32]
Activation = Literal["gelu", "gelu_tanh", "quick_gelu"]
Pool = Literal["token", "norm_mean", "mean_norm"]  # class token; patches, in order of operation


@dataclass(frozen=True, kw_only=True)
class Norm:
    """Hold a LayerNorm: scale and shift [width]."""

    scale: Array
    shift: Array
    epsilon: float


@dataclass(frozen=True, kw_only=True)
class Linear:
    """Hold y = x W + b with W [in out], as MatMul takes it."""

    weight: Array
    bias: Array


@dataclass(frozen=True, kw_only=True)
class Block:
    """Hold one residual attention block."""

    norm_1: Norm
    packed: Linear  # queries, keys, values: [width 3*width]
    out: Linear
    norm_2: Norm
    up: Linear
    down: Linear


@dataclass(frozen=True, kw_only=True)
class Tower:
    """Hold an image tower."""

    size: int  # pixels
    patch: int  # pixels
    heads: int
    kernel: Array  # [width 3 patch patch]
    first: Array  # class token [width]
    positions: Array  # [1+patches width]
    norm_pre: Norm | None
    blocks: tuple[Block, ...]
    activation: Activation
    pool: Pool
    norm_post: Norm
    projection: Array | None  # [width joint]

    @property
    def width(self) -> int:
        """Return the width of a token."""
        return len(self.first)

    @property
    def joint(self) -> int:
        """Return the numbers of an image embedding."""
        return self.width if self.projection is None else self.projection.shape[1]

    @property
    def grid(self) -> int:
        """Return the patches along one side."""
        return self.size // self.patch


def is_plain(visual: Any) -> bool:
    """Say whether the tower is one that `read_tower` knows in every detail."""
    return (
        _is(visual, "VisionTransformer")
        and visual.attn_pool is None
        and visual.pool_type in ("tok", "avg")
        and visual.image_size[0] == visual.image_size[1]
        and visual.patch_size[0] == visual.patch_size[1]
        and all(_is_plain_block(block) for block in visual.transformer.resblocks)
        and len({_activation(block.mlp.gelu) for block in visual.transformer.resblocks}) == 1
    )


def _is_plain_block(block: Any) -> bool:
    return (
        _is(block, "ResidualAttentionBlock")
        and not hasattr(block, "ln_1_kv")
        and block.attn.in_proj_weight is not None
        and block.attn.in_proj_bias is not None
        and block.attn.bias_k is None
        and not block.attn.add_zero_attn
        and (type(block.mlp.gelu) is nn.GELU or _is(block.mlp.gelu, "QuickGELU"))
    )


def _is(module: object, name: str) -> bool:
    """Recognise a class of open_clip by name: the backbone is the only door to the library."""
    kind = type(module)
    return (kind.__module__, kind.__qualname__) == ("open_clip.transformer", name)


def read_tower(visual: Any) -> Tower:
    """Return the tensors, as float32 arrays, of a tower that `is_plain` accepts."""
    blocks = visual.transformer.resblocks
    return Tower(
        size=visual.image_size[0],
        patch=visual.patch_size[0],
        heads=blocks[0].attn.num_heads,
        kernel=_array(visual.conv1.weight),
        first=_array(visual.class_embedding),
        positions=_array(visual.positional_embedding),
        norm_pre=None if isinstance(visual.ln_pre, nn.Identity) else _norm(visual.ln_pre),
        blocks=tuple(_block(block) for block in blocks),
        activation=_activation(blocks[0].mlp.gelu),
        pool=_pool(visual),
        norm_post=_norm(visual.ln_post),
        projection=None if visual.proj is None else _array(visual.proj),
    )


def _block(block: Any) -> Block:
    attention, mlp = block.attn, block.mlp
    return Block(
        norm_1=_norm(block.ln_1),
        packed=_linear(attention.in_proj_weight, attention.in_proj_bias),
        out=_linear(attention.out_proj.weight, attention.out_proj.bias, block.ls_1),
        norm_2=_norm(block.ln_2),
        up=_linear(mlp.c_fc.weight, mlp.c_fc.bias),
        down=_linear(mlp.c_proj.weight, mlp.c_proj.bias, block.ls_2),
    )


def _linear(weight: Tensor, bias: Tensor, layer_scale: Any = None) -> Linear:
    """Return x W + b with a LayerScale behind it folded in: (x W + b) * g = x (W g) + b g."""
    gamma = getattr(layer_scale, "gamma", None)
    factor = np.float32(1) if gamma is None else _array(gamma)
    return Linear(weight=_array(weight).T * factor, bias=_array(bias) * factor)


def _norm(module: Any) -> Norm:
    return Norm(
        scale=_array(module.weight),
        shift=_array(module.bias),
        epsilon=float(module.eps),
    )


def _activation(module: nn.Module) -> Activation:
    if isinstance(module, nn.GELU):
        return "gelu_tanh" if module.approximate == "tanh" else "gelu"
    return "quick_gelu"


def _pool(visual: Any) -> Pool:
    if visual.pool_type == "tok":
        return "token"
    return "mean_norm" if visual.final_ln_after_pool else "norm_mean"


def _array(tensor: Tensor) -> Array:
    found: Array = tensor.detach().float().cpu().numpy()
    return found
