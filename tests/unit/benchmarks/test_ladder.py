import onnxruntime
import pytest

from benchmarks.ladder import PIXELS_TOO, RECIPES, TRACED, climb, page


@pytest.mark.slow
def test_every_step_is_a_graph_that_answers(subject):
    rows = {row[0]: row for row in climb(subject, 0.1)}
    assert next(iter(rows)) == TRACED
    assert len(rows) == 2 + len(RECIPES)
    exact = [rows[name] for name in (TRACED, "ort, fp32", "portable, fp32")]
    assert all(row[5] == "100.00%" and float(row[6]) < 1e-3 for row in exact)
    assert all(float(rows[name][6]) > 1e-3 for name in ("ort, int8-dynamic", PIXELS_TOO))
    assert float(rows[PIXELS_TOO][1]) <= float(rows["portable, int8-dynamic"][1])


def test_a_page_has_a_table_for_each_backbone():
    row = ("ort, fp32", "11.3", 62, "1.67", "1.23", "100.00%", "1e-05", "+0.00")
    text = page({"embedded": [row], "other": [row, row]})
    assert text.startswith("# The ladder\n")
    assert text.count("| ort, fp32 | 11.3 | 62 | 1.67 |") == 3
    assert text.count("## ") == 2
    assert onnxruntime.__version__ in text
