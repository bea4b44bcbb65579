"""FedCLIP's feature adapter in the graph (`fedprompt.prompts.attention`, arXiv 2302.13485).

z' = (a * z) / |a * z|,    a = softmax(G tanh(H z + h) + g)
"""

from export.fold.constants import Adapter
from export.graph.builder import BATCH, Graph
from export.graph.l2_normalise import write_unit


def write_adapter(graph: Graph, rows: str, adapter: Adapter, *, name: str) -> str:
    """Append the adapter behind unit rows [batch joint]; the result has length one again."""
    shape = (BATCH, len(adapter.hidden_bias))
    hidden = graph.constant("adapter/hidden/weight", adapter.hidden)
    bias = graph.constant("adapter/hidden/bias", adapter.hidden_bias)
    inner = graph.add("Gemm", [rows, hidden, bias], shape, name="adapter/hidden", transB=1)
    inner = graph.add("Tanh", [inner], shape, name="adapter/active")
    gate = graph.constant("adapter/gate/weight", adapter.gate)
    bias = graph.constant("adapter/gate/bias", adapter.gate_bias)
    inner = graph.add("Gemm", [inner, gate, bias], shape, name="adapter/gate", transB=1)
    weights = graph.add("Softmax", [inner], shape, name="adapter/weights", axis=-1)
    weighed = graph.add("Mul", [weights, rows], shape, name="adapter/weighed")
    return write_unit(graph, weighed, shape, name=name)
