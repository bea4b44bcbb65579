from dataclasses import replace
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from export.runtime import Classifier
from export.runtime.metadata import GraphMetadata
from export.targets.card import sections
from export.targets.card.run_record import RunRecord
from export.targets.card.sections import Exported
from export.targets.classifier import Written
from fedprompt.round_record import RoundRecord, SiteScore

FILE = Exported("classifier.onnx", 1234567, "f" * 64, open_vocabulary=False)
ARTEFACT: dict[str, Any] = {
    "method": "dip",
    "rank": 1,
    "template": "a photo of a {}.",
    "round": 3,
    "seed": 0,
    "aggregation": {"rule": "product", "truncation_error": 0.25},
    "privacy": None,
}
RUN = RunRecord(
    settings={"server.strategy": "fedavg", "server.secure_aggregation": True},
    first=RoundRecord(round=0, joined=(0, 1, 2), accuracy=0.25),
    last=RoundRecord(
        round=3,
        accuracy=0.5,
        nll=1.5,
        loss=2.5,
        sites={0: SiteScore(accuracy=1.0, examples=7), 1: SiteScore(accuracy=0.0, examples=5)},
    ),
)
RUNG = {
    "step": "int8-dynamic",
    "size": 3_400_000,
    "nodes": 172,
    "agreement": 0.9663,
    "largest": 0.59,
    "loss": 0.0013,
    "speed": 3.06,
}
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def metadata(written: Written) -> GraphMetadata:
    return Classifier(written.path, provider="cpu").metadata


def rows(section: str) -> dict[str, str]:
    """Return a table of two columns."""
    cells = [[c.strip() for c in line.split("|")[1:-1]] for line in section.splitlines()]
    return {row[0]: row[1] for row in cells if len(row) == 2}


def test_the_head_is_what_hubs_read() -> None:
    head = sections.front_matter(FILE, {"name": "hf-hub:timm/ViT-B-16-SigLIP"}, "dip")
    assert head.startswith("---\n")
    found = yaml.safe_load(head.split("---\n")[1])
    assert found == {
        "library_name": "fedprompt",
        "pipeline_tag": "image-classification",
        "base_model": "timm/ViT-B-16-SigLIP",
        "tags": ["onnx", "clip", "dip"],
    }
    bundle = FILE._replace(open_vocabulary=True)
    found = yaml.safe_load(sections.front_matter(bundle, {}, "dip").split("---\n")[1])
    assert found["pipeline_tag"] == "zero-shot-image-classification"
    assert "base_model" not in found


@given(st.text(), st.text())
def test_the_head_takes_no_text_of_strangers(name: str, method: str) -> None:
    head = sections.front_matter(FILE, {"name": f"hf-hub:{name}"}, method)
    found = yaml.safe_load(head.split("---\n")[1])
    assert found.keys() <= {"library_name", "pipeline_tag", "base_model", "tags"}
    assert found["tags"][:2] == ["onnx", "clip"]


def test_the_file_and_what_it_takes(metadata: GraphMetadata) -> None:
    found = rows(sections.of_file(FILE, metadata))
    assert found["file"] == "classifier.onnx, 1,234,567 bytes"
    assert found["SHA-256"] == "f" * 64
    assert found["input"] == "`images`, uint8 [batch, 32, 32, 3], RGB, resized (shortest, bicubic)"
    assert found["output"].startswith("`logits` [batch, 5]")
    assert (found["precision"], found["operators"]) == ("fp32", "ort, opset 20")
    assert "as deployed" not in found
    bundle = FILE._replace(open_vocabulary=True)
    assert "bundle.json" in rows(sections.of_file(bundle, metadata))["as deployed"]


def test_the_model_and_its_hashes(metadata: GraphMetadata) -> None:
    found = rows(sections.of_model(metadata, ARTEFACT))
    assert found["backbone"] == "tiny none"
    assert found["backbone, SHA-256"] == metadata.backbone["sha256"]
    assert found["prompt, SHA-256"] == "a" * 64
    assert found["template"] == "a photo of a {}."
    assert "host" not in found  # this artefact does not say


def test_a_local_path_stays_at_home(metadata: GraphMetadata) -> None:
    backbone = metadata.backbone | {"name": "local-dir:/home/alice/clip"}
    told = sections.of_model(replace(metadata, backbone=backbone), ARTEFACT)
    assert rows(told)["backbone"] == r"local-dir\:clip none"
    assert "alice" not in told


def test_classes_stand_in_the_order_of_the_logits() -> None:
    assert rows(sections.of_classes(("cat", "a|b"))) == {
        "logit": "class",
        "---": "---",
        "0": "cat",
        "1": "a&#124;b",
    }
    many = sections.of_classes(tuple(map(str, range(1500))))
    assert "| 999 | 999 |" in many
    assert "| 1000 |" not in many
    assert "The file has 500 more." in many


def test_agreement_is_that_of_the_file(metadata: GraphMetadata) -> None:
    told = sections.of_parity(metadata)
    assert "| real images | 8 | 100.00% |" in told
    assert "| seeded probes | 8 | 100.00% |" in told
    assert "--force" not in told
    assert metadata.parity is not None
    forced = replace(metadata, parity=metadata.parity | {"forced": True, "images": None})
    assert "**The bounds were broken" in sections.of_parity(forced)
    assert "No real images were compared." in sections.of_parity(forced)
    assert "Not recorded." in sections.of_parity(replace(metadata, parity=None))


def test_every_step_of_the_ladder_is_a_row(metadata: GraphMetadata) -> None:
    told = sections.of_ladder(replace(metadata, ladder=(RUNG, RUNG | {"speed": None})))
    row = "| int8-dynamic | 3,400,000 | 172 | 3.06 | 96.63% | 0.59 | -0.13 |"
    assert row in told
    assert row.replace("3.06", "not recorded") in told
    assert sections.of_ladder(replace(metadata, ladder=())) == ""


def test_tuning_is_told_as_the_run_recorded_it() -> None:
    found = rows(sections.of_tuning(ARTEFACT, RUN))
    assert found["round"] == "3"
    assert (found["rule"], found["truncation error"]) == ("product", "0.25")
    assert (found["sites that joined"], found["strategy"]) == ("3", "fedavg")
    assert found["secure aggregation"] == "yes"
    assert (found["accuracy of the untrained prompt"], found["accuracy"]) == ("25.0%", "50.0%")
    assert found["accuracies are of"] == "12 held-out images of the sites"


def test_no_single_site_is_in_it() -> None:
    told = sections.of_tuning(ARTEFACT, RUN)
    assert "100.0%" not in told
    assert "0.0%" not in [cell.strip() for cell in told.split("|")]


def test_what_is_not_recorded_has_no_line() -> None:
    told = sections.of_tuning({"round": 3, "seed": 0, "aggregation": None}, None)
    assert rows(told).keys() == {"", "---", "round", "seed"}
    assert "no accuracy is stated" in told
    bare = sections.of_tuning(ARTEFACT, RunRecord({}, None, RoundRecord(round=3)))
    assert "accuracy" not in bare
    assert "strategy" not in bare


def test_accuracies_with_prompts_of_the_sites_own_are_marked() -> None:
    own = replace(RUN, settings={"prompt.personal": "both"})
    assert "not this file's" in sections.of_tuning(ARTEFACT, own)
    assert "not this file's" not in sections.of_tuning(ARTEFACT, RUN)


def test_privacy_is_the_ledger_s() -> None:
    spent = {"epsilon": 1.8663693, "delta": 1e-5, "releases": 2, "unit": "site"}
    found = rows(sections.of_privacy(ARTEFACT | {"privacy": spent}))
    assert (found["epsilon"], found["delta"], found["releases"]) == ("1.8663693", "1e-05", "2")
    assert found["unit"] == "site"
    assert found["noise multiplier"] == "not recorded"
    assert "No differential privacy" in sections.of_privacy(ARTEFACT)
    assert "Not recorded." in sections.of_privacy({})


SCALAR = st.booleans() | st.floats() | st.integers() | st.text(max_size=5)
FIGURE = st.none() | st.floats(allow_nan=False, allow_infinity=False)


@given(st.dictionaries(st.sampled_from(list(ARTEFACT)), JSON), SCALAR, FIGURE)
def test_odd_records_make_no_error_and_no_markup(
    artefact: dict[str, Any], setting: str | float, figure: float | None
) -> None:
    last = RoundRecord(round=1, nll=figure, loss=figure)
    run = RunRecord(dict.fromkeys(RUN.settings, setting), None, last)
    told = sections.of_tuning(artefact, run) + sections.of_privacy(artefact)
    assert "<" not in told


@given(st.dictionaries(st.sampled_from(list(RUNG)), JSON))
def test_an_odd_ladder_makes_no_error(metadata: GraphMetadata, rung: dict[str, Any]) -> None:
    told = sections.of_ladder(replace(metadata, ladder=(rung,)))
    assert "<" not in told


def test_no_licence_is_made_up() -> None:
    assert "No licence is recorded" in sections.limits()
