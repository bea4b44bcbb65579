import contextlib
import struct

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import export.runtime.safety.onnx_file
from export.runtime.safety.onnx_file import read_onnx
from export.targets.classifier import Exported
from fedprompt.errors import GraphError

BIG = 2**63 - 1


def number(value: int) -> bytes:
    """Return protobuf's encoding of a number of at most 64 bits."""
    digits = []
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    return bytes([*digits, value])


def part(field: int, content: bytes) -> bytes:
    return number(field << 3 | 2) + number(len(content)) + content


def single(field: int, value: int) -> bytes:
    return number(field << 3) + number(value)


def graph_of(*parts: bytes) -> bytes:
    return part(7, b"".join(parts))


def tensor_of(*parts: bytes) -> bytes:
    return graph_of(part(5, b"".join(parts)))


def node_of(*parts: bytes) -> bytes:
    return graph_of(part(1, b"".join(parts)))


def attribute_of(*parts: bytes) -> bytes:
    return node_of(part(5, b"".join(parts)))


def test_everything_of_a_file_is_read_as_the_onnx_package_reads_it(written: Exported) -> None:
    data = written.path.read_bytes()
    found, expected = read_onnx(data), onnx.load_model_from_string(data).graph
    assert [n.operator for n in found.nodes] == [n.op_type for n in expected.node]
    for node, other in zip(found.nodes, expected.node, strict=True):
        assert (node.inputs, node.outputs) == (tuple(other.input), tuple(other.output))
        assert node.domain == other.domain
        values = {a.name: helper.get_attribute_value(a) for a in other.attribute}
        assert {n: list(v) if isinstance(v, tuple) else v for n, v in node.attributes.items()} == (
            values
        )
    assert len(found.constants) == len(expected.initializer)
    for tensor in expected.initializer:
        assert found.constants[tensor.name].shape == tuple(tensor.dims)
    infos = {i.name: i for i in (*expected.input, *expected.output, *expected.value_info)}
    declared = {**found.inputs, **found.outputs, **found.between}
    assert declared.keys() == infos.keys()
    for name, info in infos.items():
        dims = info.type.tensor_type.shape.dim
        assert declared[name].shape == tuple(None if d.dim_param else d.dim_value for d in dims)


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("values", [[0, 1, -1, BIG, -BIG - 1], [], 7])
def test_integers_are_read_in_both_ways_that_onnx_has(values: object, raw: bool) -> None:
    array = np.array(values, np.int64)
    tensor = numpy_helper.from_array(array, "t")
    if not raw:
        tensor = helper.make_tensor("t", TensorProto.INT64, array.shape, array.reshape(-1))
    model = helper.make_model(helper.make_graph([], "g", [], [], [tensor]))
    found = read_onnx(model.SerializeToString()).constants["t"]
    assert found.shape == array.shape
    assert found.integers() == array.reshape(-1).tolist()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "holds no graph"),
        (graph_of(b"") * 2, "says its graph twice"),
        (part(25, b"") + graph_of(), "functions"),
        (part(20, b"") + graph_of(), "training"),
        (part(26, b"") + graph_of(), "number 26"),
        (part(536_870_911, b"") + graph_of(), "unknown here"),
        (graph_of(part(15, b"")), "sparse"),
        (graph_of(part(14, b"")), "number 14"),
        (attribute_of(part(6, b"")), "graph inside"),
        (attribute_of(part(11, b"")), "graph inside"),
        (attribute_of(part(22, b"")), "sparse"),
        (attribute_of(part(5, b"")), "constant as an attribute"),
        (attribute_of(part(10, b"")), "number 10"),
        (attribute_of(part(21, b"alpha")), "number 21"),  # of the function around it
        (attribute_of(part(1, b"a"), single(3, 1)), "not one value of its type"),
        (attribute_of(part(1, b"a"), single(3, 1), single(20, 1)), "not one value"),
        (attribute_of(single(3, 1), single(20, 2), single(8, 1)), "not one value"),
        (attribute_of(single(3, 1), single(3, 2), single(20, 2)), "says its i twice"),
        (
            node_of(*[part(5, part(1, b"a") + single(3, n) + single(20, 2)) for n in (1, 2)]),
            "says twice what 'a'",
        ),
        (tensor_of(part(13, b"")), "another file"),
        (tensor_of(single(14, 1)), "another file"),
        (tensor_of(part(6, b"text")), "texts"),
        (tensor_of(single(2, 8)), "of the type 8"),
        (tensor_of(single(2, 11)), "of the type 11"),
        (tensor_of(single(2, 1), single(1, 2), part(9, b"1234")), "not the bytes"),
        (tensor_of(single(2, 1), single(1, 1 << 40)), "not the bytes"),
        (tensor_of(single(2, 1), single(1, 2), part(4, b"1234")), "not the bytes"),
        (tensor_of(single(2, 7), single(1, 2), part(7, b"\x01")), "not the bytes"),
        (tensor_of(single(2, 7), single(1, 1), part(7, b"\x01"), part(9, b"12345678")), "bytes"),
        (tensor_of(single(2, 7), single(1, 1), part(5, b"\x01")), "not the bytes"),
        (tensor_of(single(2, 1), single(1, (1 << 64) - 1)), "the shape"),
        (tensor_of(single(2, 1), *[single(1, 1)] * 9, part(9, b"1234")), "the shape"),
        (tensor_of(single(2, 1), part(1, b"\xff" * 9 + b"\x01")), "the shape"),
        (graph_of(*[part(5, part(8, b"w") + single(2, 1) + part(9, b"1234"))] * 2), "twice"),
        (graph_of(part(11, part(1, b"x"))), "without a shape"),
        (graph_of(part(11, part(2, part(4, b"")))), "number 4"),  # a sequence
        (b"\x3a\x80\x00", "longer than it need be"),
        (b"\xba\x00\x00", "longer than it need be"),
        (b"\x3a" + b"\x80" * 10 + b"\x01", "a number is cut off"),
        (single(1, 1 << 65), "too large"),
        (b"\x3a", "cut off"),
        (b"\x3a\x05\x0a", "cut off"),
        (graph_of(number(1 << 3 | 3)), "wrong wire type"),  # a group
        (number(7 << 3 | 1) + b"12345678", "wrong wire type"),
        (part(1, b"\x01") + graph_of(), "wrong wire type"),
        (attribute_of(number(2 << 3 | 5) + b"123"), "cut off"),
        (node_of(part(4, b"\xff")), "no text"),
    ],
)  # fmt: skip
def test_what_no_exporter_writes_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(GraphError, match=reason):
        read_onnx(data)


@pytest.mark.parametrize("dims", [[single(1, 0) + part(2, b"n")], [single(1, (1 << 64) - 2)]])
def test_dimensions_that_are_none_are_refused(dims: list[bytes]) -> None:
    shape = part(2, b"".join(part(1, dim) for dim in dims))
    with pytest.raises(GraphError, match="dimensions that no tensor has"):
        read_onnx(graph_of(part(11, part(1, b"x") + part(2, part(1, single(1, 1) + shape)))))


def test_a_file_of_countless_parts_is_refused_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export.runtime.safety.onnx_file, "MOST_FIELDS", 100)
    with pytest.raises(GraphError, match="more than 100 parts"):
        read_onnx(graph_of(*[part(5, b"")] * 101))
    with pytest.raises(GraphError, match="more than 100 parts"):
        read_onnx(tensor_of(part(1, b"\x01" * 101)))
    with pytest.raises(GraphError, match="more than 100 numbers"):
        read_onnx(tensor_of(single(2, 7), single(1, 101), part(7, b"\x01" * 101)))


def test_a_float_is_read_with_its_digits() -> None:
    field = number(2 << 3 | 5) + struct.pack("<f", 0.1)
    node = read_onnx(attribute_of(part(1, b"a"), field, single(20, 1))).nodes[0]
    assert node.attributes == {"a": pytest.approx(0.1)}


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for content in (data, graph_of(data), node_of(data), attribute_of(data), tensor_of(data)):
        with contextlib.suppress(GraphError):
            read_onnx(content)
