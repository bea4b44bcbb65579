"""Read the structure of an ONNX file by hand: protobuf's wire format, no onnx package, no copies.

Stricter than protobuf where two readers could understand two things: a field that this file does
not list, a single field that comes twice (protobuf merges them), a number that is longer than it
need be, an attribute with two values. No exporter writes any of these. Fields and their numbers:
https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Final, Literal

from fedprompt.errors import GraphError

MOST_FIELDS = 2_000_000  # of all messages: an exported graph has some ten thousand
MOST_DIMS = 8
MOST_SIDE = 1 << 40  # of a tensor, which has no elements then: another side is 0

FLOAT, UINT8, INT8, INT32, INT64, BOOL, FLOAT16, BFLOAT16 = 1, 2, 3, 6, 7, 9, 10, 16
ITEM_BYTES: Final[Mapping[int, int]] = {
    FLOAT: 4, UINT8: 1, INT8: 1, INT32: 4, INT64: 8, BOOL: 1, FLOAT16: 2, BFLOAT16: 2,
}  # fmt: skip

Shape = tuple[int, ...]
DeclaredShape = tuple[int | None, ...]  # None = a size that is known when the graph is run


@dataclass(frozen=True)
class Tensor:
    """One constant: its type, its shape and the place of its bytes."""

    name: str
    kind: int
    shape: Shape
    raw: memoryview | None
    packed: memoryview | None  # numbers one by one, as protobuf has them

    def integers(self) -> list[int]:
        """Return the values of an int64 tensor, row by row."""
        if self.raw is not None:
            return list(memoryview(bytes(self.raw)).cast("q"))  # ONNX: little-endian
        return _packed_integers(self.packed or memoryview(b""))


Attribute = int | float | bytes | tuple[int, ...]


@dataclass(frozen=True)
class Node:
    """One operator."""

    domain: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute]

    def __str__(self) -> str:
        return f"{self.domain}:{self.operator}" if self.domain else self.operator


@dataclass(frozen=True)
class Declared:
    """What the file says of an input, an output or a tensor between two operators."""

    kind: int
    shape: DeclaredShape


@dataclass(frozen=True)
class OnnxFile:
    """The structure of a file; the constants' bytes stay where they are."""

    opsets: Mapping[str, int]
    nodes: tuple[Node, ...]
    constants: Mapping[str, Tensor]
    inputs: Mapping[str, Declared]
    outputs: Mapping[str, Declared]
    between: Mapping[str, Declared]


def read_onnx(data: bytes) -> OnnxFile:
    """Return the structure of an ONNX file.

    Raises
    ------
    GraphError
        The bytes are damaged, or hold anything but one graph of plain operators and constants.
    """
    model = _Reader(data).message(_MODEL, 0, len(data))
    if "graph" not in model:
        raise GraphError("it holds no graph")
    graph = model["graph"]
    return OnnxFile(
        opsets=_by_name(
            (entry.get("domain", ""), entry.get("version", 0)) for entry in model["opsets"]
        ),
        nodes=tuple(map(_node, graph["nodes"])),
        constants=_by_name((t.name, t) for t in map(_tensor, graph["constants"])),
        inputs=_by_name(map(_declared, graph["inputs"])),
        outputs=_by_name(map(_declared, graph["outputs"])),
        between=_by_name(map(_declared, graph["between"])),
    )


@dataclass(frozen=True)
class _Field:
    """How a field is called and read; ``kind`` is a message's fields, or a scalar."""

    name: str
    kind: "Literal['integer', 'float', 'text', 'bytes'] | Mapping[int, _Field | str]"
    many: bool = False


_Message = Mapping[int, _Field | str]  # number -> how it is read, or why it is refused
_SPARSE = "holds a sparse tensor"
_OUTSIDE = "keeps tensor data in another file"
_GRAPH_INSIDE = "has a graph inside an operator, as Loop, If and Scan have"

_DIM: _Message = {1: _Field("size", "integer"), 2: _Field("symbol", "text")}
_SHAPE: _Message = {1: _Field("dims", _DIM, many=True)}
_TENSOR_TYPE: _Message = {1: _Field("kind", "integer"), 2: _Field("shape", _SHAPE)}
_TYPE: _Message = {1: _Field("tensor", _TENSOR_TYPE)}
_VALUE_INFO: _Message = {
    1: _Field("name", "text"),
    2: _Field("type", _TYPE),
    3: _Field("note", "text"),
}
_TENSOR: _Message = {
    1: _Field("dims", "integer", many=True),
    2: _Field("kind", "integer"),
    4: _Field("floats", "bytes"),
    5: _Field("int32s", "bytes"),
    6: "holds texts as a tensor",
    7: _Field("int64s", "bytes"),
    8: _Field("name", "text"),
    9: _Field("raw", "bytes"),
    12: _Field("note", "text"),
    13: _OUTSIDE,
    14: _Field("location", "integer"),
}
_ATTRIBUTE: _Message = {
    1: _Field("name", "text"),
    2: _Field("f", "float"),
    3: _Field("i", "integer"),
    4: _Field("s", "bytes"),
    5: "has a constant as an attribute",
    6: _GRAPH_INSIDE,
    8: _Field("ints", "integer", many=True),
    11: _GRAPH_INSIDE,
    13: _Field("note", "text"),
    20: _Field("type", "integer"),
    22: _SPARSE,
    23: _SPARSE,
}
_NODE: _Message = {
    1: _Field("inputs", "text", many=True),
    2: _Field("outputs", "text", many=True),
    3: _Field("name", "text"),
    4: _Field("operator", "text"),
    5: _Field("attributes", _ATTRIBUTE, many=True),
    6: _Field("note", "text"),
    7: _Field("domain", "text"),
}
_GRAPH: _Message = {
    1: _Field("nodes", _NODE, many=True),
    2: _Field("name", "text"),
    5: _Field("constants", _TENSOR, many=True),
    10: _Field("note", "text"),
    11: _Field("inputs", _VALUE_INFO, many=True),
    12: _Field("outputs", _VALUE_INFO, many=True),
    13: _Field("between", _VALUE_INFO, many=True),
    15: _SPARSE,
}
_OPSET: _Message = {1: _Field("domain", "text"), 2: _Field("version", "integer")}
_ENTRY: _Message = {1: _Field("key", "text"), 2: _Field("value", "text")}
_MODEL: _Message = {
    1: _Field("ir_version", "integer"),
    2: _Field("producer", "text"),
    3: _Field("producer_version", "text"),
    4: _Field("domain", "text"),
    5: _Field("version", "integer"),
    6: _Field("note", "text"),
    7: _Field("graph", _GRAPH),
    8: _Field("opsets", _OPSET, many=True),
    14: _Field("metadata", _ENTRY, many=True),
    20: "holds a graph for training",
    25: "defines functions of its own",
}


class _Reader:
    """Walk the messages of a file."""

    def __init__(self, data: bytes) -> None:
        self._data, self._bytes, self._left = data, memoryview(data), MOST_FIELDS

    def message(self, fields: _Message, at: int, end: int) -> dict[str, Any]:
        """Return a message's fields by name; one that may come many times is there as a list."""
        found: dict[str, Any] = {
            field.name: [] for field in fields.values() if isinstance(field, _Field) and field.many
        }
        while at < end:
            key, at = _varint(self._data, at, end)
            field = fields.get(key >> 3, f"holds a field of number {key >> 3}, unknown here")
            if isinstance(field, str):
                raise GraphError(f"it {field}")
            value, at = self._value(field, key & 7, at, end)
            self._left -= 1
            if self._left < 0:
                raise GraphError(f"it has more than {MOST_FIELDS:,} parts")
            if field.many:
                found[field.name] += value
            elif field.name in found:
                raise GraphError(f"it says its {field.name} twice")
            else:
                [found[field.name]] = value
        return found

    def _value(self, field: _Field, wire: int, at: int, end: int) -> tuple[list[Any], int]:
        """Return the values of one field, several only where numbers are packed, and its end."""
        if wire == 0 and field.kind == "integer":
            number, at = _varint(self._data, at, end)
            return [_signed(number)], at
        if wire == 5 and field.kind == "float" and at + 4 <= end:
            return [memoryview(self._data[at : at + 4]).cast("f")[0]], at + 4
        single = field.kind in ("integer", "float") and not field.many
        if wire != 2 or single:
            raise GraphError(f"it is damaged: its {field.name} has a wrong wire type or is cut off")
        length, at = _varint(self._data, at, end)
        if (stop := at + length) > end:
            raise GraphError(f"it is damaged: its {field.name} is cut off")
        part = self._bytes[at:stop]
        if field.kind == "integer":
            numbers = _packed_integers(part)
            self._left -= len(numbers)
            return numbers, stop
        if field.kind == "bytes":
            return [part], stop
        if isinstance(field.kind, Mapping):
            return [self.message(field.kind, at, stop)], stop
        return [_text(part)], stop


def _varint(data: bytes | memoryview, at: int, end: int) -> tuple[int, int]:
    """Return a number of base 128, low digits first, and where it ends."""
    number = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        digit = data[at]
        at += 1
        number |= (digit & 127) << shift
        if digit < 128:
            if (digit == 0 and shift) or number >> 64:
                break
            return number, at
    raise GraphError("it is damaged: a number is cut off, too large or longer than it need be")


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number


def _packed_integers(part: memoryview) -> list[int]:
    numbers, at = [], 0
    while at < len(part):
        number, at = _varint(part, at, len(part))
        numbers.append(_signed(number))
    return numbers


def _text(part: memoryview) -> str:
    try:
        return str(part, "utf-8")
    except UnicodeDecodeError as error:
        raise GraphError(f"its names or metadata are no text: {error}") from None


def _by_name(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise GraphError(f"it says twice what {name[:100]!r} is")
        found[name] = value
    return found


_ATTRIBUTE_TYPES = {"f": 1, "i": 2, "s": 3, "ints": 7}


def _node(found: dict[str, Any]) -> Node:
    attributes = _by_name(map(_attribute, found["attributes"]))
    return Node(
        found.get("domain", ""),
        found.get("operator", ""),
        tuple(found["inputs"]),
        tuple(found["outputs"]),
        attributes,
    )


def _attribute(found: dict[str, Any]) -> tuple[str, Attribute]:
    kinds = [kind for kind in _ATTRIBUTE_TYPES if found.get(kind, []) != []]
    if not kinds and found.get("type") == _ATTRIBUTE_TYPES["ints"]:
        kinds = ["ints"]
    if len(kinds) != 1 or found.get("type") != _ATTRIBUTE_TYPES[kinds[0]]:
        raise GraphError(f"attribute {found.get('name', '')[:100]!r} has not one value of its type")
    value = found[kinds[0]]
    if kinds == ["ints"]:
        value = tuple(value)
    return found.get("name", ""), bytes(value) if kinds == ["s"] else value


def _tensor(found: dict[str, Any]) -> Tensor:
    name, kind, shape = found.get("name", ""), found.get("kind", 0), tuple(found["dims"])
    if found.get("location", 0):
        raise GraphError(f"it {_OUTSIDE}: {name[:100]!r}")
    if kind not in ITEM_BYTES:
        raise GraphError(f"constant {name[:100]!r} is of the type {kind}; expected plain numbers")
    if len(shape) > MOST_DIMS or not all(0 <= side <= MOST_SIDE for side in shape):
        raise GraphError(f"constant {name[:100]!r} has the shape {list(shape)[:20]}")
    count, raw = prod(shape), found.get("raw")
    stored = [found[key] for key in ("raw", "floats", "int32s", "int64s") if key in found]
    typed = found.get({FLOAT: "floats", INT64: "int64s"}.get(kind, "int32s"))
    if raw is not None:
        fits = len(raw) == count * ITEM_BYTES[kind]
    elif kind == FLOAT:
        fits = len(typed or b"") == 4 * count
    else:  # a number of base 128 has its high bit clear in its last byte
        fits = count == 0 or (typed is not None and _count_packed(typed) == count)
    if not fits or len(stored) > 1:
        raise GraphError(f"constant {name[:100]!r} has not the bytes of its shape {list(shape)}")
    return Tensor(name, kind, shape, raw, typed)


def _count_packed(part: memoryview) -> int:
    if len(part) > MOST_FIELDS:
        raise GraphError(f"a constant has more than {MOST_FIELDS:,} numbers one by one")
    return sum(byte < 128 for byte in part)


def _declared(found: dict[str, Any]) -> tuple[str, Declared]:
    name = found.get("name", "")
    tensor = found.get("type", {}).get("tensor")
    if tensor is None or "shape" not in tensor:
        raise GraphError(f"{name[:100]!r} is declared without a shape")
    dims = tensor["shape"]["dims"]
    sizes = [dim.get("size", 0) for dim in dims]
    fits = len(dims) <= MOST_DIMS and all(0 <= size <= MOST_SIDE for size in sizes)
    if not fits or any(len(dim) > 1 for dim in dims):
        raise GraphError(f"{name[:100]!r} is declared with dimensions that no tensor has")
    return name, Declared(tensor.get("kind", 0), tuple(dim.get("size") for dim in dims))
