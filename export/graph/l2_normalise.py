"""Rows of length one: x / max(|x|, 1e-12), as torch's normalize."""

from export.graph.builder import Graph, Shape

_SMALLEST = 1e-12


def write_unit(graph: Graph, rows: str, shape: Shape, *, name: str) -> str:
    """Append the division of rows [... width] by their lengths."""
    single = (*shape[:-1], 1)
    length = graph.add(
        "ReduceL2", [rows, graph.integers(-1)], single, name=f"{name}/length", keepdims=1
    )
    floor = graph.constant(f"{name}/smallest", _SMALLEST)
    divisor = graph.add("Clip", [length, floor], single, name=f"{name}/divisor")
    return graph.add("Div", [rows, divisor], shape, name=name)
