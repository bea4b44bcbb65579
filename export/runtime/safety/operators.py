"""The operators that a classifier may be made of, each with the rule for the size of its result.

The list is what the exporter writes, over every target, precision, method and tower; a test keeps
it so. A rule says no less than what ONNX Runtime makes: an attribute or an input that would change
the size and that no exported file has is refused. Rules are those of opset 20 and of ONNX Runtime's
contrib operators:
https://github.com/onnx/onnx/blob/main/docs/Operators.md
https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TypeVar

from export.runtime.safety.onnx_file import (
    INT64,
    ITEM_BYTES,
    MOST_DIMS,
    MOST_SIDE,
    Attribute,
    Node,
    Shape,
)
from fedprompt.errors import GraphError

OPSETS: Mapping[str, int] = {"": 20, "com.microsoft": 1}
MOST_KNOWN = 64  # numbers of a tensor that are followed, to know the shapes made of them
_LARGEST = 1 << 40  # of such a number
_PER_ELEMENT = 64  # multiplications that one element of any operator may cost, exp for one


@dataclass(frozen=True)
class Value:
    """What is known of a tensor before anything is computed.

    Attributes
    ----------
    shape
        Of this very batch.
    numbers
        Its integers, row by row, where a shape may be made of them; else None.
    """

    shape: Shape
    numbers: tuple[int, ...] | None = None

    @property
    def size(self) -> int:
        """Return its number of elements."""
        return prod(self.shape)


@dataclass(frozen=True)
class Made:
    """An operator's results, its multiplications, and the elements it needs in between."""

    values: Sequence[Value]
    work: int = 0
    scratch: int = 0


Rule = Callable[..., Made | Value]
_AnyRule = TypeVar("_AnyRule", bound=Rule)
Inputs = Sequence[Value | None]  # None = one that is left out
_RULES: dict[tuple[str, str], tuple[Rule, inspect.Signature]] = {}


class _MisfitError(Exception):
    """What does not fit; `apply` adds the operator's name."""


def names() -> frozenset[tuple[str, str]]:
    """Return every (domain, operator) on the list."""
    return frozenset(_RULES)


def apply(node: Node, inputs: Inputs) -> Made:
    """Return what a node makes of its inputs.

    Raises
    ------
    GraphError
        The operator is not on the list, or its inputs or attributes are none that were exported.
    """
    if (node.domain, node.operator) not in _RULES:
        raise GraphError(f"it uses the operator {str(node)[:100]}, which no exported file has")
    rule, signature = _RULES[node.domain, node.operator]
    try:
        bound = _bind(signature, inputs, node.attributes)
        made = rule(*bound.args, **bound.kwargs)
    except _MisfitError as error:
        raise GraphError(f"its operator {node} {error}") from None
    if isinstance(made, Value):
        made = Made([made])
    if not 1 <= len(node.outputs) <= len(made.values):
        raise GraphError(f"its operator {node} has {len(node.outputs)} outputs")
    for value in made.values:
        if len(value.shape) > MOST_DIMS or not all(0 <= side <= MOST_SIDE for side in value.shape):
            raise GraphError(f"its operator {node} makes the shape {list(value.shape)[:20]}")
    touched = sum(value.size for value in (*made.values, *filter(None, inputs)))
    return Made(made.values, made.work + _PER_ELEMENT * touched, made.scratch)


def _bind(
    signature: inspect.Signature, inputs: Inputs, attributes: Mapping[str, Attribute]
) -> inspect.BoundArguments:
    """Fit inputs and attributes to a rule's parameters: positional and keyword-only ones."""
    try:
        bound = signature.bind(*inputs, **attributes)
    except TypeError as error:
        raise _MisfitError(
            f"has other inputs or attributes than any exported one: {error}"
        ) from None
    for name, value in attributes.items():
        if not isinstance(value, signature.parameters[name].annotation):
            raise _MisfitError(f"has the attribute {name} = {value!r:.100}")
    required = (p for p in signature.parameters.values() if p.annotation is Value)
    for parameter in required:
        found = bound.arguments[parameter.name]
        if None in (found if isinstance(found, tuple) else (found,)):
            raise _MisfitError(f"lacks its input {parameter.name}")
    return bound


def _operator(*operators: str, domain: str = "") -> Callable[[_AnyRule], _AnyRule]:
    def listed(rule: _AnyRule) -> _AnyRule:
        for operator in operators:
            _RULES[domain, operator] = rule, inspect.signature(rule)
        return rule

    return listed


# One element of the result for each of the first input


@_operator("Relu", "Sigmoid", "Tanh")
def _each(rows: Value) -> Value:
    return Value(rows.shape)


@_operator("Gelu")
def _gelu(rows: Value, *, approximate: bytes = b"none") -> Value:  # noqa: ARG001
    return Value(rows.shape)


@_operator("Neg")
def _neg(rows: Value) -> Value:
    return Value(rows.shape, _computed(int.__neg__, rows))


@_operator("Cast")
def _cast(rows: Value, *, to: int) -> Value:
    if to not in ITEM_BYTES:
        raise _MisfitError(f"makes numbers of the type {to}")
    return Value(rows.shape, rows.numbers if to == INT64 else None)


@_operator("Clip")
def _clip(rows: Value, low: Value | None = None, high: Value | None = None) -> Value:
    _require_single(low, high)
    return Value(rows.shape)


@_operator("Softmax")
def _softmax(rows: Value, *, axis: int = -1) -> Value:
    _axis(axis, rows)
    return Value(rows.shape)


@_operator("LayerNormalization")
def _layer_norm(
    rows: Value,
    scale: Value,
    shift: Value | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,  # noqa: ARG001
    stash_type: int = 1,  # noqa: ARG001
) -> Value:
    normed = rows.shape[_axis(axis, rows) :]
    if any(part is not None and part.shape != normed for part in (scale, shift)):
        raise _MisfitError("has a scale or a shift of another shape than its rows")
    return Value(rows.shape)


@_operator("BatchNormalization")
def _batch_norm(
    rows: Value,
    scale: Value,
    shift: Value,
    mean: Value,
    variance: Value,
    *,
    epsilon: float = 1e-5,  # noqa: ARG001
    momentum: float = 0.9,  # noqa: ARG001
    training_mode: int = 0,
) -> Value:
    if training_mode or {part.shape for part in (scale, shift, mean, variance)} != {
        rows.shape[1:2]
    }:
        raise _MisfitError("has other statistics than one for each channel")
    return Value(rows.shape)


@_operator("QuantizeLinear", "DequantizeLinear")
def _scaled(rows: Value, scale: Value, zero: Value | None = None, *, axis: int = 1) -> Value:
    lengths = {(), (1,)} if not rows.shape else {(), (1,), (rows.shape[_axis(axis, rows)],)}
    if any(part is not None and part.shape not in lengths for part in (scale, zero)):
        raise _MisfitError("has other scales than one, or one for each place along its axis")
    return Value(rows.shape)


@_operator("DynamicQuantizeLinear")
def _scaled_as_it_comes(rows: Value) -> Made:
    return Made([Value(rows.shape), Value(()), Value(())])


# Two inputs side by side


@_operator("Add")
def _add(one: Value, other: Value) -> Value:
    return _side_by_side(int.__add__, one, other)


@_operator("Sub")
def _sub(one: Value, other: Value) -> Value:
    return _side_by_side(int.__sub__, one, other)


@_operator("Mul")
def _mul(one: Value, other: Value) -> Value:
    return _side_by_side(int.__mul__, one, other)


@_operator("Div", "Equal")
def _div(one: Value, other: Value) -> Value:
    return Value(_broadcast(one.shape, other.shape))


def _side_by_side(compute: Callable[[int, int], int], one: Value, other: Value) -> Value:
    shape = _broadcast(one.shape, other.shape)
    return Value(shape, _computed(compute, one, other) if len(shape) < 2 else None)


def _computed(compute: Callable[..., int], *values: Value) -> tuple[int, ...] | None:
    """Return integers computed one by one, of values of one length or single ones."""
    columns = [value.numbers for value in values]
    if any(column is None for column in columns):
        return None
    known = [column for column in columns if column is not None]
    length = max(map(len, known))
    found = tuple(map(compute, *(c * length if len(c) == 1 else c for c in known)))
    if any(abs(number) > _LARGEST for number in found):
        raise _MisfitError("computes a shape of absurd numbers")
    return found


# Products


@_operator("MatMul")
def _matmul(one: Value, other: Value) -> Made:
    if min(len(one.shape), len(other.shape)) < 2 or one.shape[-1] != other.shape[-2]:
        raise _MisfitError(f"multiplies {list(one.shape)} by {list(other.shape)}")
    outer = _broadcast(one.shape[:-2], other.shape[:-2])
    result = Value((*outer, one.shape[-2], other.shape[-1]))
    return Made([result], work=result.size * one.shape[-1])


@_operator("MatMulInteger")
def _matmul_integer(
    one: Value, other: Value, one_zero: Value | None = None, other_zero: Value | None = None
) -> Made:
    made = _matmul(one, other)
    if any(
        zero and zero.shape not in ((), (1,), (v.shape[-1],))
        for zero, v in ((one_zero, one), (other_zero, other))
    ):
        raise _MisfitError("has other zero points than one, or one for each column")
    return made


@_operator("Gemm")
def _gemm(
    one: Value,
    other: Value,
    added: Value | None = None,
    *,
    alpha: float = 1.0,  # noqa: ARG001
    beta: float = 1.0,  # noqa: ARG001
    transA: int = 0,  # noqa: N803 - ONNX's names
    transB: int = 0,  # noqa: N803
) -> Made:
    if len(one.shape) != 2 or len(other.shape) != 2:
        raise _MisfitError(f"multiplies {list(one.shape)} by {list(other.shape)}")
    left = one.shape[::-1] if transA else one.shape
    right = other.shape[::-1] if transB else other.shape
    made = _matmul(Value(left), Value(right))
    if added is not None and _broadcast(added.shape, made.values[0].shape) != made.values[0].shape:
        raise _MisfitError(f"adds {list(added.shape)}")
    return made


@_operator("Conv")
def _conv(
    rows: Value,
    weight: Value,
    bias: Value | None = None,
    *,
    auto_pad: bytes = b"NOTSET",
    dilations: tuple = (),  # type: ignore[type-arg]
    group: int = 1,
    kernel_shape: tuple = (),  # type: ignore[type-arg]
    pads: tuple = (),  # type: ignore[type-arg]
    strides: tuple = (),  # type: ignore[type-arg]
) -> Made:
    window = weight.shape[2:]
    channels, fits = rows.shape[1:2], len(rows.shape) == len(weight.shape) >= 3
    if not fits or group < 1 or channels != (weight.shape[1] * group,) or weight.shape[0] % group:
        raise _MisfitError(f"of {group} groups folds {list(rows.shape)} with {list(weight.shape)}")
    if auto_pad != b"NOTSET" or kernel_shape not in ((), window):
        raise _MisfitError("has another window than its weights, or pads of its own choice")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise _MisfitError("has another bias than one for each channel")
    places = _slide(rows.shape[2:], window, strides, pads, dilations)
    result = Value((rows.shape[0], weight.shape[0], *places))
    each = prod(weight.shape[1:])
    return Made([result], work=result.size * each, scratch=each * prod(places))


@_operator("AveragePool")
def _pool(
    rows: Value,
    *,
    auto_pad: bytes = b"NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,  # noqa: ARG001
    dilations: tuple = (),  # type: ignore[type-arg]
    kernel_shape: tuple,  # type: ignore[type-arg]
    pads: tuple = (),  # type: ignore[type-arg]
    strides: tuple = (),  # type: ignore[type-arg]
) -> Made:
    if auto_pad != b"NOTSET" or ceil_mode or len(kernel_shape) != len(rows.shape) - 2:
        raise _MisfitError("has another window than its rows, or pads of its own choice")
    places = _slide(rows.shape[2:], kernel_shape, strides, pads, dilations)
    result = Value((*rows.shape[:2], *places))
    return Made([result], work=result.size * prod(kernel_shape))


def _slide(sides: Shape, window: Shape, strides: Shape, pads: Shape, dilations: Shape) -> list[int]:
    """Return at how many places along each side a window lies."""
    count = len(sides)
    strides, dilations = strides or (1,) * count, dilations or (1,) * count
    pads = pads or (0,) * (2 * count)
    fits = (len(strides), len(dilations), len(pads)) == (count, count, 2 * count)
    if not fits or min((*strides, *dilations, *window), default=1) < 1 or min(pads, default=0) < 0:
        raise _MisfitError("has a window that does not fit its rows")
    padded = (side + pads[i] + pads[count + i] for i, side in enumerate(sides))
    return [
        max((length - step * (width - 1) - 1) // stride + 1, 0)
        for length, width, stride, step in zip(padded, window, strides, dilations, strict=True)
    ]


# Sums along axes


@_operator("ReduceL2", "ReduceMean", "ReduceSum")
def _reduce(
    rows: Value, axes: Value | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
) -> Value:
    if noop_with_empty_axes:
        raise _MisfitError("may sum nothing up")
    summed = _axes(_known(axes), rows) if axes is not None else range(len(rows.shape))
    kept = ((1 if i in summed else side, i in summed) for i, side in enumerate(rows.shape))
    return Value(tuple(side for side, gone in kept if keepdims or not gone))


@_operator("ArgMax")
def _arg_max(
    rows: Value,
    *,
    axis: int = 0,
    keepdims: int = 1,
    select_last_index: int = 0,  # noqa: ARG001
) -> Value:
    place = _axis(axis, rows)
    return Value((*rows.shape[:place], *([1] if keepdims else []), *rows.shape[place + 1 :]))


# Moving and cutting


@_operator("Transpose")
def _transpose(rows: Value, *, perm: tuple = ()) -> Value:  # type: ignore[type-arg]
    order = perm or tuple(reversed(range(len(rows.shape))))
    if sorted(order) != list(range(len(rows.shape))):
        raise _MisfitError(f"has the order {list(order)[:20]}")
    return Value(tuple(rows.shape[axis] for axis in order))


@_operator("Reshape")
def _reshape(rows: Value, wanted: Value, *, allowzero: int = 0) -> Value:
    sides = list(_known(wanted))
    if len(sides) > MOST_DIMS or sides.count(-1) > 1 or min(sides, default=0) < -1:
        raise _MisfitError(f"makes the shape {sides[:20]}")
    if not allowzero:  # a zero stands for the side that is there
        there = (*rows.shape, *([0] * MOST_DIMS))
        sides = [there[place] if side == 0 else side for place, side in enumerate(sides)]
    if -1 in sides:
        rest = prod(side for side in sides if side != -1)
        sides[sides.index(-1)] = rows.size // rest if rest else 0
    if prod(sides) != rows.size:
        raise _MisfitError(f"makes {sides} of {list(rows.shape)}")
    return Value(tuple(sides), rows.numbers)


@_operator("Squeeze")
def _squeeze(rows: Value, axes: Value | None = None) -> Value:
    gone = _axes(_known(axes), rows) if axes is not None else _ones(rows)
    if any(rows.shape[axis] != 1 for axis in gone):
        raise _MisfitError(f"takes sides {sorted(gone)} from {list(rows.shape)}")
    return Value(tuple(s for i, s in enumerate(rows.shape) if i not in gone), rows.numbers)


def _ones(rows: Value) -> set[int]:
    return {axis for axis, side in enumerate(rows.shape) if side == 1}


@_operator("Unsqueeze")
def _unsqueeze(rows: Value, axes: Value) -> Value:
    count = len(rows.shape) + len(_known(axes))
    if count > MOST_DIMS:
        raise _MisfitError(f"makes {count} sides")
    added, sides = _axes(_known(axes), Value((1,) * count)), iter(rows.shape)
    return Value(tuple(1 if axis in added else next(sides) for axis in range(count)), rows.numbers)


@_operator("Concat")
def _concat(*parts: Value, axis: int) -> Value:
    if not parts:
        raise _MisfitError("joins nothing")
    first, place = parts[0], _axis(axis, parts[0])
    if any(_without(part, place) != _without(first, place) for part in parts):
        raise _MisfitError(f"joins {[list(part.shape) for part in parts[:8]]}")
    length = sum(part.shape[place] for part in parts)
    numbers: tuple[int, ...] | None = None
    if len(first.shape) == 1 and all(part.numbers is not None for part in parts):
        numbers = tuple(number for part in parts for number in part.numbers or ())
    return Value((*first.shape[:place], length, *first.shape[place + 1 :]), _few(numbers))


def _without(value: Value, axis: int) -> tuple[Shape, Shape]:
    return value.shape[:axis], value.shape[axis + 1 :]


@_operator("Split")
def _split(
    rows: Value, lengths: Value | None = None, *, axis: int = 0, num_outputs: int = 0
) -> Made:
    place = _axis(axis, rows)
    if lengths is None and not 1 <= num_outputs <= MOST_KNOWN:
        raise _MisfitError(f"cuts into {num_outputs} parts")
    side = rows.shape[place]
    if lengths is None:
        each = -(-side // num_outputs)
        parts = [each] * (num_outputs - 1)
        parts.append(side - sum(parts))
    else:
        parts = list(_known(lengths))
    if sum(parts) != side or min(parts, default=0) < 0:
        raise _MisfitError(f"cuts {side} into {parts[:20]}")
    return Made([Value((*rows.shape[:place], part, *rows.shape[place + 1 :])) for part in parts])


@_operator("Slice")
def _slice(
    rows: Value, begins: Value, ends: Value, axes: Value | None = None, steps: Value | None = None
) -> Value:
    first, last = _known(begins), _known(ends)
    along = range(len(first)) if axes is None else _known(axes)
    by = (1,) * len(first) if steps is None else _known(steps)
    if not len(first) == len(last) == len(along) == len(by) or min(by, default=1) < 1:
        raise _MisfitError("cuts with numbers that do not fit each other")
    places = [_axis(axis, rows) for axis in along]
    if len(set(places)) < len(places):
        raise _MisfitError("cuts one side twice")
    sides, taken = list(rows.shape), range(0)
    for place, *cut in zip(places, first, last, by, strict=True):
        taken = range(*slice(*cut).indices(rows.shape[place]))  # ONNX clamps as Python does
        sides[place] = len(taken)
    numbers = rows.numbers if len(rows.shape) == 1 and places else None
    return Value(tuple(sides), None if numbers is None else tuple(numbers[i] for i in taken))


@_operator("Gather")
def _gather(rows: Value, chosen: Value, *, axis: int = 0) -> Value:
    place = _axis(axis, rows)
    shape = (*rows.shape[:place], *chosen.shape, *rows.shape[place + 1 :])
    if rows.numbers is None or chosen.numbers is None or len(rows.shape) != 1:
        return Value(shape)
    side = len(rows.numbers)
    if any(not -side <= index < side for index in chosen.numbers):
        raise _MisfitError("takes what is not there")
    return Value(shape, tuple(rows.numbers[index] for index in chosen.numbers))


@_operator("GatherND")
def _gather_nd(rows: Value, chosen: Value, *, batch_dims: int = 0) -> Value:
    depth = chosen.shape[-1] if chosen.shape else 0
    inner = batch_dims + depth
    if not 0 <= batch_dims < len(chosen.shape) or depth < 1 or inner > len(rows.shape):
        raise _MisfitError(f"takes {list(chosen.shape)} from {list(rows.shape)}")
    if rows.shape[:batch_dims] != chosen.shape[:batch_dims]:
        raise _MisfitError(f"takes {list(chosen.shape)} from {list(rows.shape)}")
    return Value((*chosen.shape[:-1], *rows.shape[inner:]))


@_operator("Pad")
def _pad(
    rows: Value, pads: Value, value: Value | None = None, *, mode: bytes = b"constant"
) -> Value:
    added, count = _known(pads), len(rows.shape)
    if mode != b"constant" or len(added) != 2 * count or min(added, default=0) < 0:
        raise _MisfitError(f"adds {list(added)[:20]} to {list(rows.shape)}")
    _require_single(value)
    return Value(tuple(s + added[i] + added[count + i] for i, s in enumerate(rows.shape)))


@_operator("Expand")
def _expand(rows: Value, wanted: Value) -> Value:
    return Value(_broadcast(rows.shape, _known(wanted)))


# Numbers of which shapes are made


@_operator("Shape")
def _shape(rows: Value, *, start: int = 0, end: int | None = None) -> Value:
    sides = rows.shape[start:end]
    return Value((len(sides),), sides)


@_operator("Range")
def _range(begin: Value, limit: Value, step: Value) -> Value:
    one = [_known(part) for part in (begin, limit, step)]
    if any(len(part) != 1 for part in one) or one[2] == (0,):
        raise _MisfitError("has no begin, end and step")
    (first,), (last,), (by,) = one
    length = max(0, -((first - last) // by))  # rounded up
    numbers = range(first, last, by)
    return Value((length,), tuple(numbers) if length <= MOST_KNOWN else None)


# ONNX Runtime's own


@_operator("Attention", domain="com.microsoft")
def _attention(
    rows: Value,
    weight: Value,
    bias: Value,
    *,
    num_heads: int,
    scale: float,  # noqa: ARG001
) -> Made:
    if len(rows.shape) != 3 or len(weight.shape) != 2 or weight.shape[1] % 3 or num_heads < 1:
        raise _MisfitError(f"has weights {list(weight.shape)} for rows {list(rows.shape)}")
    batch, length, width = rows.shape
    if width != weight.shape[0] or bias.shape != weight.shape[1:]:
        raise _MisfitError(f"has weights {list(weight.shape)} for rows {list(rows.shape)}")
    inner = weight.shape[1] // 3
    scores = batch * num_heads * length * length
    work = batch * length * width * weight.shape[1] + 2 * batch * length * length * inner
    scratch = 2 * scores + 2 * batch * length * weight.shape[1]
    return Made([Value((batch, length, inner))], work, scratch)


@_operator("MultiHeadAttention", domain="com.microsoft")
def _multi_head_attention(
    query: Value,
    key: Value,
    value: Value,
    bias: Value | None = None,
    *,
    num_heads: int,
    scale: float,  # noqa: ARG001
) -> Made:
    parts = (query, key, value)
    if any(len(part.shape) != 3 for part in parts) or num_heads < 1:
        raise _MisfitError(f"has rows {[list(part.shape) for part in parts]}")
    (batch, asked, width), (_, length, _) = query.shape, key.shape
    if key.shape != (batch, length, width) or value.shape[:2] != (batch, length):
        raise _MisfitError(f"has rows {[list(part.shape) for part in parts]}")
    read = value.shape[2]
    if bias is not None and bias.shape != (2 * width + read,):
        raise _MisfitError(f"has a bias {list(bias.shape)}")
    scratch = 2 * batch * num_heads * asked * length + 2 * sum(part.size for part in parts)
    work = batch * asked * length * (width + read)
    return Made([Value((batch, asked, read))], work, scratch)


@_operator("SkipLayerNormalization", domain="com.microsoft")
def _skip_layer_norm(
    rows: Value,
    skip: Value,
    scale: Value,
    shift: Value | None = None,
    bias: Value | None = None,
    *,
    epsilon: float = 1e-12,  # noqa: ARG001
) -> Made:
    last = rows.shape[-1:]
    if skip.shape != rows.shape or any(p and p.shape != last for p in (scale, shift, bias)):
        raise _MisfitError("adds rows of another shape")
    whole, single = Value(rows.shape), Value((*rows.shape[:-1], 1))
    return Made([whole, single, single, whole])


@_operator("BiasGelu", "FastGelu", domain="com.microsoft")
def _bias_gelu(rows: Value, bias: Value) -> Value:
    if bias.shape != rows.shape[-1:]:
        raise _MisfitError(f"adds {list(bias.shape)} to {list(rows.shape)}")
    return Value(rows.shape)


@_operator("QuickGelu", domain="com.microsoft")
def _quick_gelu(rows: Value, *, alpha: float = 1.702) -> Value:  # noqa: ARG001
    return Value(rows.shape)


# What the rules share


def _broadcast(one: Shape, other: Shape) -> Shape:
    """Return the shape of two side by side."""
    count = max(len(one), len(other))
    left, right = ((1,) * (count - len(shape)) + tuple(shape) for shape in (one, other))
    if any(a != b and 1 not in (a, b) for a, b in zip(left, right, strict=True)):
        raise _MisfitError(f"lays {list(one)} beside {list(other)}")
    return tuple(b if a == 1 else a for a, b in zip(left, right, strict=True))


def _axis(axis: int, value: Value) -> int:
    count = len(value.shape)
    if not -count <= axis < count:
        raise _MisfitError(f"has axis {axis} of {list(value.shape)}")
    return axis % count


def _axes(axes: Sequence[int], value: Value) -> set[int]:
    found = {_axis(axis, value) for axis in axes}
    if len(found) < len(axes):
        raise _MisfitError("names an axis twice")
    return found


def _known(value: Value | None) -> tuple[int, ...]:
    if value is None or value.numbers is None:
        raise _MisfitError("makes a shape of numbers that are only known when it is computed")
    return value.numbers


def _few(numbers: tuple[int, ...] | None) -> tuple[int, ...] | None:
    return numbers if numbers is not None and len(numbers) <= MOST_KNOWN else None


def _require_single(*values: Value | None) -> None:
    if any(value is not None and value.size != 1 for value in values):
        raise _MisfitError("has several numbers where one was expected")
