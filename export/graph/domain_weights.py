"""Weights of the domains, one for each visual prompt (ADAPT, arXiv 2310.03103).

The prompts stay from block 0 on, a token a domain. With q the class token's query in the last block
and k_i the key of token i there,

    w_i = mean over heads of softmax_i(q . k_i / sqrt(head width))

The keys' bias adds the same to every q . k_i of a head, which softmax takes out again: it is not
there.
"""

from export.graph.builder import BATCH, Graph
from export.graph.operators import write_first_row
from export.graph.read_tower import Tower


def write_domains(graph: Graph, normed: str, tower: Tower, count: int) -> str:
    """Append the weights [batch domains], of what enters the last block's attention.

    ``normed`` is [batch length width]: the tower's own rows and ``count`` prompts behind them.
    """
    own, width, heads = 1 + tower.grid**2, tower.width, tower.heads
    packed, scale = tower.blocks[-1].packed, (width // heads) ** -0.5
    first = write_first_row(graph, normed, width, name="domains/first")
    weight = graph.constant("domains/query/weight", packed.weight[:, :width] * scale)
    query = graph.add("MatMul", [first, weight], (BATCH, 1, width), name="domains/query/raw")
    bias = graph.constant("domains/query/bias", packed.bias[:width] * scale)
    query = graph.add("Add", [query, bias], (BATCH, 1, width), name="domains/query")
    shape = (BATCH, count, width)
    ends = [graph.integers(own), graph.integers(own + count), graph.integers(1)]
    guests = graph.add("Slice", [normed, *ends], shape, name="domains/guests")
    weight = graph.constant("domains/keys/weight", packed.weight[:, width : 2 * width])
    keys = graph.add("MatMul", [guests, weight], shape, name="domains/keys")
    products = graph.add("Mul", [keys, query], shape, name="domains/products")
    split = (BATCH, count, heads, width // heads)
    products = graph.add(
        "Reshape",
        [products, graph.integers(0, count, heads, width // heads)],
        split,
        name="domains/split",
    )
    each = (BATCH, count, heads)
    scores = graph.add(
        "ReduceSum", [products, graph.integers(3)], each, name="domains/scores", keepdims=0
    )
    shares = graph.add("Softmax", [scores], each, name="domains/shares", axis=1)
    return graph.add(
        "ReduceMean",
        [shares, graph.integers(2)],
        (BATCH, count),
        name="domains/weights",
        keepdims=0,
    )
