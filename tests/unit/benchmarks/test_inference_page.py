import onnxruntime

from benchmarks.console import markdown
from benchmarks.inference_goals import CEILINGS, FLOORS, goal_table
from benchmarks.inference_page import page
from benchmarks.inference_tables import answer_table, cost_table, pipeline_table, speed_table


def figure(key, value):
    return {key: value, f"{key}_spread": [value - 0.1, value + 0.1]}


def test_a_page_without_figures_says_so_everywhere():
    text = page({})
    assert text.startswith("# Inference\n")
    assert onnxruntime.__version__ in text
    assert "None" not in text
    assert text.count("**no**") == len(FLOORS) + len(CEILINGS)


def test_a_ratio_stands_in_its_cell_with_its_spread():
    found = figure("vit_b16_b16_int8_vs_eager", 2.5)
    head, rows = speed_table(found)
    [int8] = [row for row in rows if row[0] == "fedprompt, int8"]
    assert int8[head.index("ViT-B/16, 16 images")] == "2.50 (2.40 to 2.60)"
    assert int8.count("-") == 5


def test_goals_are_reached_or_not():
    found = figure("vit_b32_b1_fp32_vs_eager", 1.36) | figure("vit_b32_b1_int8_vs_eager", 4.0)
    found |= figure("classes_10000_vs_10", 1.1) | figure("end_to_end_vs_graph_b16", 1.31)
    found |= {"int8_loss_points": -0.2, "fp16_agreement": 0.99}
    verdicts = {row[0].strip("`"): row[-1] for row in goal_table(found)[1]}
    assert verdicts["vit_b32_b1_int8_vs_eager"] == verdicts["classes_10000_vs_10"] == "yes"
    assert verdicts["vit_b32_b1_fp32_vs_eager"] == "**no**"
    assert verdicts["end_to_end_vs_graph_b16"] == verdicts["fp16_agreement"] == "**no**"
    assert verdicts["int8_loss_points"] == "yes"


def test_a_peer_that_did_not_run_is_named():
    text = page({"vit_b32_compiled_absent": "RuntimeError: no compiler"})
    assert (
        "torch.compile, weights frozen did not run on ViT-B/32: RuntimeError: no compiler" in text
    )


def test_every_table_has_as_many_cells_as_its_head():
    found = figure("vit_b32_b1_end_to_end_fp32_vs_open_clip", 2.0) | {"int8_agreement": 0.5}
    costs = cost_table(found, "batch", "images", (1, 2))
    tables = speed_table(found), pipeline_table(found), costs, answer_table(found)
    for table in (*tables, goal_table(found)):
        lines = markdown(*table).splitlines()
        assert len({line.count("|") for line in lines}) == 1
