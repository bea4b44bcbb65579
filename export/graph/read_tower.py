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
    """A LayerNorm: scale and shift [width]."""

    scale: Array
    shift: Array
    epsilon: float

    def __call__(self, rows: Array) -> Array:
        """Return constant rows [... width], normed once and for all."""
        exact = rows.astype(np.float64)
        centred = exact - exact.mean(-1, keepdims=True)
        deviation = np.sqrt((centred**2).mean(-1, keepdims=True) + self.epsilon)
        normed: Array = (centred / deviation * self.scale + self.shift).astype(np.float32)
        return normed


@dataclass(frozen=True, kw_only=True)
class Linear:
    """The map y = x W + b with W [in out], as MatMul takes it."""

    weight: Array
    bias: Array


@dataclass(frozen=True, kw_only=True)
class Block:
    """One residual attention block."""

    norm_1: Norm
    packed: Linear  # queries, keys, values: [width 3*width]; only queries have a bias
    out: Linear
    norm_2: Norm
    up: Linear
    down: Linear


@dataclass(frozen=True, kw_only=True)
class Tower:
    """The tensors and sizes of an image tower."""

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
    """Return whether the tower is one that `read_tower` knows in every detail."""
    return (
        _is(visual, "VisionTransformer")
        and visual.attn_pool is None
        and visual.pool_type in ("tok", "avg")
        and visual.image_size[0] == visual.image_size[1]
        and visual.patch_size[0] == visual.patch_size[1]
        and all(is_plain_block(block) for block in visual.transformer.resblocks)
        and len({activation_of(block.mlp.gelu) for block in visual.transformer.resblocks}) == 1
    )


def is_plain_block(block: Any) -> bool:
    """Return whether a residual block is one that `read_block` knows in every detail."""
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
        kernel=as_array(visual.conv1.weight),
        first=as_array(visual.class_embedding),
        positions=as_array(visual.positional_embedding),
        norm_pre=None if isinstance(visual.ln_pre, nn.Identity) else read_norm(visual.ln_pre),
        blocks=tuple(read_block(block) for block in blocks),
        activation=activation_of(blocks[0].mlp.gelu),
        pool=_pool(visual),
        norm_post=read_norm(visual.ln_post),
        projection=None if visual.proj is None else as_array(visual.proj),
    )


def read_block(block: Any) -> Block:
    """Return the tensors of a block that `is_plain_block` accepts."""
    attention, mlp = block.attn, block.mlp
    packed, out = settle_biases(
        _linear(attention.in_proj_weight, attention.in_proj_bias),
        _linear(attention.out_proj.weight, attention.out_proj.bias, block.ls_1),
    )
    return Block(
        norm_1=read_norm(block.ln_1),
        packed=packed,
        out=out,
        norm_2=read_norm(block.ln_2),
        up=_linear(mlp.c_fc.weight, mlp.c_fc.bias),
        down=_linear(mlp.c_proj.weight, mlp.c_proj.bias, block.ls_2),
    )


def settle_biases(packed: Linear, out: Linear) -> tuple[Linear, Linear]:
    """Return the projections around attention without biases of keys and values.

    A key's bias adds the same q . b to every score of a query, which softmax takes out. Attention
    weights sum to one, so that a value's bias b passes through as it is: it becomes b W_out.
    """
    width = len(packed.weight)
    queries = np.concatenate([packed.bias[:width], np.zeros(2 * width, np.float32)])
    passed = packed.bias[2 * width :].astype(np.float64) @ out.weight + out.bias
    return (
        Linear(weight=packed.weight, bias=queries),
        Linear(weight=out.weight, bias=passed.astype(np.float32)),
    )


def _linear(weight: Tensor, bias: Tensor, layer_scale: Any = None) -> Linear:
    """Return x W + b with a LayerScale behind it folded in: (x W + b) * g = x (W g) + b g."""
    gamma = getattr(layer_scale, "gamma", None)
    factor = np.float32(1) if gamma is None else as_array(gamma)
    return Linear(weight=as_array(weight).T * factor, bias=as_array(bias) * factor)


def read_norm(module: Any) -> Norm:
    """Return the tensors of a LayerNorm."""
    return Norm(
        scale=as_array(module.weight),
        shift=as_array(module.bias),
        epsilon=float(module.eps),
    )


def activation_of(module: nn.Module) -> Activation:
    """Return the name of a block's activation."""
    if isinstance(module, nn.GELU):
        return "gelu_tanh" if module.approximate == "tanh" else "gelu"
    return "quick_gelu"


def _pool(visual: Any) -> Pool:
    if visual.pool_type == "tok":
        return "token"
    return "mean_norm" if visual.final_ln_after_pool else "norm_mean"


def as_array(tensor: Tensor) -> Array:
    """Return a tensor as a float32 array."""
    array: Array = tensor.detach().float().cpu().numpy()
    return array
