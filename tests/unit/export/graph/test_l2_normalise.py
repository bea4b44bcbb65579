import numpy as np
import onnx
import onnxruntime
import pytest
from torch import from_numpy
from torch.nn.functional import normalize

from export.graph.builder import BATCH, Graph
from export.graph.l2_normalise import write_unit


@pytest.mark.parametrize("inner", [(), (3,)])
def test_rows_are_made_of_length_one_as_torch_does(inner: tuple[int, ...]) -> None:
    shape = (BATCH, *inner, 8)
    graph = Graph()
    raw = graph.add("Cast", ["images"], shape, name="raw", to=onnx.TensorProto.FLOAT)
    write_unit(graph, raw, shape, name="unit")
    model = graph.model(shape, ["unit"])
    onnx.checker.check_model(model, full_check=True)
    rows = np.random.default_rng(0).integers(0, 256, (4, *inner, 8), dtype=np.uint8)
    rows[1] = 0  # of no length: stays zero, not NaN
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (found,) = session.run(None, {"images": rows})
    expected = normalize(from_numpy(rows.astype(np.float32)), dim=-1).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-7)
    assert not found[1].any()
