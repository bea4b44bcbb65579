import json

import pytest
import typer

from benchmarks import inference
from benchmarks.inference import SAME, SECTIONS, chosen, measure, quoted
from benchmarks.inference_answers import agreement
from benchmarks.inference_speed import RECIPES, prompted, speeds
from benchmarks.subject import Subject


def test_sections_are_chosen_by_name():
    assert list(chosen("")) == list(SECTIONS)
    assert list(chosen("jpeg, answers")) == ["jpeg", "answers"]
    with pytest.raises(typer.BadParameter, match="nothing"):
        chosen("nothing")


def test_what_was_measured_is_kept_and_a_failure_costs_its_own_section_only(tmp_path, capsys):
    def broken(seconds):
        raise RuntimeError("no memory")

    sections = {"one": lambda seconds: {"a": seconds}, "two": broken, "three": lambda _: {"b": 2}}
    found, whole = measure(sections, 0.5, tmp_path / "kept.json")
    assert not whole
    assert (found["a"], found["b"], found["two_failed"]) == (0.5, 2, "RuntimeError: no memory")
    assert json.loads((tmp_path / "kept.json").read_text()) == found
    assert "two: RuntimeError: no memory" in capsys.readouterr().err


def test_quoted_figures_have_their_spread():
    found = dict.fromkeys(SAME.values(), 1.0) | {f"{long}_spread": [] for long in SAME.values()}
    assert set(quoted(found)) == {*SAME, *(f"{short}_spread" for short in SAME)}
    assert quoted({}) == {}


def test_a_command_writes_the_page_and_ends_with_one_json_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(inference, "SECTIONS", {"one": lambda _: {"fp32_top1_agreement": 1.0}})
    page, kept = tmp_path / "page.md", tmp_path / "kept.json"
    inference.main(output=page, as_json=True, only="", seconds=1.0, kept=kept)
    assert page.read_text().startswith("# Inference")
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["fp32_top1_agreement"] == 1.0


def test_every_graph_of_a_model_is_measured(subject: Subject):
    found = speeds(subject, "tiny", (), 0.1)
    for batch in (1, 16):
        assert all(found[f"tiny_b{batch}_{name}_vs_eager"] > 0 for name in RECIPES)
    assert found["tiny_fp32_agreement"] == 1
    assert found["tiny_fp32_largest"] < 1e-4
    assert prompted(subject, "prompted", 0.1)["prompted_b1_unprompted_vs_eager"] > 0


def test_answers_are_compared_on_images_and_on_probes(subject: Subject):
    found = agreement(subject)
    assert found["images"] == len(subject.real.pictures)
    for name in ("fp32", "fp32_ort"):
        assert found[f"{name}_agreement"] == found[f"{name}_probes_agreement"] == 1
        assert found[f"{name}_largest"] < 1e-4
    assert found["int8_largest"] > 1e-4
