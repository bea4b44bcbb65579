import onnxruntime
import pytest

from benchmarks import ladder
from benchmarks.ladder import Bench, page


@pytest.fixture(scope="module")
def bench(request):
    return Bench(request.getfixturevalue("clip"), 4)


@pytest.mark.slow
def test_every_step_is_a_graph_that_answers(bench, monkeypatch):
    monkeypatch.setattr(ladder, "BATCHES", {1: 1, 2: 1})
    rows = {name: bench.row(name, precision, model) for name, precision, model in bench.graphs()}
    assert next(iter(rows)) == "torch.onnx.export"
    assert len(rows) == 1 + len(ladder.RECIPES)
    exact = [rows[name] for name in ("torch.onnx.export", "ort, fp32", "portable, fp32")]
    assert all(row[5] == "100.00%" and float(row[6]) < 1e-3 for row in exact)
    assert float(rows["ort, int8-dynamic"][6]) > 1e-3


def test_a_page_has_a_table_for_each_backbone():
    row = ("ort, fp32", "11.3", 62, "1.67", "1.23", "100.00%", "1e-05", "+0.00")
    text = page({"embedded": [row], "other": [row, row]})
    assert text.startswith("# The ladder\n")
    assert text.count("| ort, fp32 | 11.3 | 62 | 1.67 |") == 3
    assert text.count("## ") == 2
    assert onnxruntime.__version__ in text
