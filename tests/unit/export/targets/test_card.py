import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from export.fold.constants import Constants
from export.runtime import Classifier
from export.runtime.metadata import GraphMetadata
from export.runtime.open_vocabulary.bundle import Bundle
from export.targets.card import (
    NOT_RECORDED,
    ExportedFile,
    RunRecord,
    card_of,
    front_matter,
    limits,
    number,
    of_classes,
    of_conversion,
    of_file,
    of_model,
    of_parity,
    of_privacy,
    of_tuning,
    table,
    text,
    write_card,
)
from export.targets.classifier import Exported
from fedprompt.artefact import Artefact
from fedprompt.backbone.clip import FrozenClip
from fedprompt.errors import StorageError
from fedprompt.identity import sha256_arrays, sha256_file
from fedprompt.round_record import RoundRecord, SiteScore
from tests.classifier_file import write_classifier
from tests.prompts import tuned

FILE = ExportedFile("classifier.onnx", 1234567, "f" * 64, open_vocabulary=False)
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
def metadata(written: Exported) -> GraphMetadata:
    return Classifier(written.path, provider="cpu").metadata


def rows(section: str) -> dict[str, str]:
    """Return a table of two columns."""
    cells = [[c.strip() for c in line.split("|")[1:-1]] for line in section.splitlines()]
    return {row[0]: row[1] for row in cells if len(row) == 2}


def test_the_head_is_what_hubs_read() -> None:
    head = front_matter(FILE, {"name": "hf-hub:timm/ViT-B-16-SigLIP"}, "dip")
    assert head.startswith("---\n")
    found = yaml.safe_load(head.split("---\n")[1])
    assert found == {
        "library_name": "fedprompt",
        "pipeline_tag": "image-classification",
        "base_model": "timm/ViT-B-16-SigLIP",
        "tags": ["onnx", "clip", "dip"],
    }
    bundle = FILE._replace(open_vocabulary=True)
    found = yaml.safe_load(front_matter(bundle, {}, "dip").split("---\n")[1])
    assert found["pipeline_tag"] == "zero-shot-image-classification"
    assert "base_model" not in found


@given(st.text(), st.text())
def test_the_head_takes_no_text_of_strangers(name: str, method: str) -> None:
    head = front_matter(FILE, {"name": f"hf-hub:{name}"}, method)
    found = yaml.safe_load(head.split("---\n")[1])
    assert found.keys() <= {"library_name", "pipeline_tag", "base_model", "tags"}
    assert found["tags"][:2] == ["onnx", "clip"]


def test_the_file_and_what_it_takes(metadata: GraphMetadata) -> None:
    found = rows(of_file(FILE, metadata))
    assert found["file"] == "classifier.onnx, 1,234,567 bytes"
    assert found["SHA-256"] == "f" * 64
    assert found["input"] == "`images`, uint8 [batch, 32, 32, 3], RGB, resized (shortest, bicubic)"
    assert found["output"].startswith("`logits` [batch, 5]")
    assert (found["precision"], found["operators"]) == ("fp32", "ort, opset 20")
    assert "as deployed" not in found
    bundle = FILE._replace(open_vocabulary=True)
    assert "bundle.json" in rows(of_file(bundle, metadata))["as deployed"]


def test_the_model_and_its_hashes(metadata: GraphMetadata) -> None:
    found = rows(of_model(metadata, ARTEFACT))
    assert found["backbone"] == "tiny none"
    assert found["backbone, SHA-256"] == metadata.backbone["sha256"]
    assert found["prompt, SHA-256"] == "a" * 64
    assert found["template"] == "a photo of a {}."
    assert "host" not in found  # this artefact does not say


def test_a_local_path_stays_at_home(metadata: GraphMetadata) -> None:
    backbone = metadata.backbone | {"name": "local-dir:/home/alice/clip"}
    told = of_model(replace(metadata, backbone=backbone), ARTEFACT)
    assert rows(told)["backbone"] == r"local-dir\:clip none"
    assert "alice" not in told


def test_classes_stand_in_the_order_of_the_logits() -> None:
    assert rows(of_classes(("cat", "a|b"))) == {
        "logit": "class",
        "---": "---",
        "0": "cat",
        "1": "a&#124;b",
    }
    many = of_classes(tuple(map(str, range(1500))))
    assert "| 999 | 999 |" in many
    assert "| 1000 |" not in many
    assert "The file has 500 more." in many


def test_agreement_is_that_of_the_file(metadata: GraphMetadata) -> None:
    told = of_parity(metadata)
    assert "| real images | 8 | 100.00% |" in told
    assert "| seeded probes | 8 | 100.00% |" in told
    assert "--force" not in told
    assert metadata.parity is not None
    forced = replace(metadata, parity=metadata.parity | {"forced": True, "images": None})
    assert "**The bounds were broken" in of_parity(forced)
    assert "No real images were compared." in of_parity(forced)
    assert "Not recorded." in of_parity(replace(metadata, parity=None))


def test_every_step_of_the_ladder_is_a_row(metadata: GraphMetadata) -> None:
    told = of_conversion(replace(metadata, ladder=(RUNG, RUNG | {"speed": None})))
    row = "| int8-dynamic | 3,400,000 | 172 | 3.06 | 96.63% | 0.59 | -0.13 |"
    assert row in told
    assert row.replace("3.06", "not recorded") in told
    assert of_conversion(replace(metadata, ladder=())) == ""


def test_tuning_is_told_as_the_run_recorded_it() -> None:
    found = rows(of_tuning(ARTEFACT, RUN))
    assert found["round"] == "3"
    assert (found["rule"], found["truncation error"]) == ("product", "0.25")
    assert (found["sites that joined"], found["strategy"]) == ("3", "fedavg")
    assert found["secure aggregation"] == "yes"
    assert (found["accuracy of the untrained prompt"], found["accuracy"]) == ("25.0%", "50.0%")
    assert found["accuracies are of"] == "12 held-out images of the sites"


def test_no_single_site_is_in_it() -> None:
    told = of_tuning(ARTEFACT, RUN)
    assert "100.0%" not in told
    assert "0.0%" not in [cell.strip() for cell in told.split("|")]


def test_what_is_not_recorded_has_no_line() -> None:
    told = of_tuning({"round": 3, "seed": 0, "aggregation": None}, None)
    assert rows(told).keys() == {"", "---", "round", "seed"}
    assert "no accuracy is stated" in told
    bare = of_tuning(ARTEFACT, RunRecord({}, None, RoundRecord(round=3)))
    assert "accuracy" not in bare
    assert "strategy" not in bare


def test_accuracies_with_prompts_of_the_sites_own_are_marked() -> None:
    own = replace(RUN, settings={"prompt.personal": "both"})
    assert "not this file's" in of_tuning(ARTEFACT, own)
    assert "not this file's" not in of_tuning(ARTEFACT, RUN)


def test_privacy_is_the_ledger_s() -> None:
    spent = {"epsilon": 1.8663693, "delta": 1e-5, "releases": 2, "unit": "site"}
    found = rows(of_privacy(ARTEFACT | {"privacy": spent}))
    assert (found["epsilon"], found["delta"], found["releases"]) == ("1.8663693", "1e-05", "2")
    assert found["unit"] == "site"
    assert found["noise multiplier"] == "not recorded"
    assert "No differential privacy" in of_privacy(ARTEFACT)
    assert "Not recorded." in of_privacy({})


SCALAR = st.booleans() | st.floats() | st.integers() | st.text(max_size=5)
FIGURE = st.none() | st.floats(allow_nan=False, allow_infinity=False)


@given(st.dictionaries(st.sampled_from(list(ARTEFACT)), JSON), SCALAR, FIGURE)
def test_odd_records_make_no_error_and_no_markup(
    artefact: dict[str, Any], setting: str | float, figure: float | None
) -> None:
    last = RoundRecord(round=1, nll=figure, loss=figure)
    run = RunRecord(dict.fromkeys(RUN.settings, setting), None, last)
    told = of_tuning(artefact, run) + of_privacy(artefact)
    assert "<" not in told


@given(st.dictionaries(st.sampled_from(list(RUNG)), JSON))
def test_an_odd_ladder_makes_no_error(metadata: GraphMetadata, rung: dict[str, Any]) -> None:
    told = of_conversion(replace(metadata, ladder=(rung,)))
    assert "<" not in told


def test_no_licence_is_made_up() -> None:
    assert "No licence is recorded" in limits()


HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "&lt;b&gt;",
    "[free](javascript:alert(1))",
    "![pixel](http://evil.example/p.png)",
    "http://evil.example www.evil.example a@evil.example",
    "cat | dog |",
    "a\\| b\\",
    "one\ntwo\r\n\n# three\n---\nlicense: mit",
    "`code` *bold* _it_ ~~no~~ $x$ [^1] :smile: #1",
    "> quote",
    "- item",
    "1. item",
    "```sh",
    "|---|---|",
    "\u202egnp.exe",
    "\ud800",
    "\x1b[31mred",
    "",
    " \t ",
]


class Cells(HTMLParser):
    """Collect the cells of the only table there is, and every other element."""

    def __init__(self, markdown: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.others: list[str] = []
        renderer = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
        self.feed(renderer.render(markdown))

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag in ("th", "td"):
            self.cells.append("")
        elif tag not in ("table", "thead", "tbody", "tr"):
            self.others.append(tag)

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.cells[-1] += data


def shown(value: str) -> str:
    """Return what a reader is to see."""
    return " ".join("".join(c if c.isprintable() else " " for c in value).split()) or "(blank)"


def check(value: str) -> None:
    found = Cells(table(("a", "b", "c"), [("1", text(value), "2")]))
    assert found.others == []
    assert found.cells == ["a", "b", "c", "1", shown(value), "2"]


@pytest.mark.parametrize("value", HOSTILE)
def test_text_of_strangers_stays_text(value: str) -> None:
    check(value)


@given(st.text(max_size=60))
def test_any_text_stays_text(value: str) -> None:
    check(value)


@given(st.text("<>&|\\`*_[]()!#~$:@=\"'-+.ab \n", max_size=40))
def test_any_marks_stay_text(value: str) -> None:
    check(value)


@pytest.mark.parametrize("value", HOSTILE)
def test_nothing_becomes_a_link_by_itself(value: str) -> None:
    """GitHub turns bare addresses into links, which the renderer of these tests does not."""
    assert not re.search(r"(?<!\\):|www\.|(?<!\\)@", text(value))


def test_long_text_is_cut_and_values_are_text() -> None:
    assert text("x" * 10**6) == "x" * 200 + "…"
    assert text("x" * 200) == "x" * 200
    assert text(3) == "3"
    assert text(["<a>"]) == r"\['&lt;a&gt;'\]"


def test_numbers_are_written_by_their_format() -> None:
    assert number(0.5, "{:.2%}") == "50.00%"
    assert number(1234, "{:,.0f}") == "1,234"


@pytest.mark.parametrize(
    "value", [None, True, "3", float("nan"), float("inf"), 10**400, [], {"a": 1}]
)
def test_what_is_no_figure_is_not_recorded(value: object) -> None:
    assert number(value, "{:.2f}") == NOT_RECORDED


@pytest.fixture
def artefact(clip: FrozenClip) -> Artefact:
    return tuned(clip)


def record(run: Path, artefact: Artefact, *lines: dict[str, Any]) -> Path:
    """Write a run of which the last round made the artefact."""
    prompt = sha256_arrays({name: artefact.tensors[name] for name in artefact.metadata["trained"]})
    written = [{"round": 0, "prompt": "0" * 64, "joined": [0, 1]}, *lines]
    written.append({"round": len(written), "prompt": prompt, "accuracy": 0.5})
    (run / "artefact").mkdir(parents=True)
    (run / "rounds.jsonl").write_text("".join(json.dumps(line) + "\n" for line in written))
    (run / "settings.json").write_text(json.dumps({"server.strategy": "fedavg"}))
    return run


def test_the_round_that_made_the_prompt_is_found(artefact: Artefact, tmp_path: Path) -> None:
    run = record(tmp_path / "run", artefact, {"round": 1, "prompt": "1" * 64, "accuracy": 0.4})
    found = RunRecord.find(run, artefact)
    assert found is not None
    assert found.first is not None
    assert (found.first.joined, found.last.round) == ((0, 1), 2)
    assert found.settings == {"server.strategy": "fedavg"}
    assert RunRecord.find(run / "artefact", artefact) == found


def test_it_counts_whatever_round_came_after(artefact: Artefact, tmp_path: Path) -> None:
    run = record(tmp_path / "run", artefact)
    with (run / "rounds.jsonl").open("a") as file:
        file.write(json.dumps({"round": 2, "prompt": "2" * 64, "accuracy": 0.9}) + '\n{"round": ')
    found = RunRecord.find(run, artefact)
    assert found is not None
    assert found.last.accuracy == 0.5


def test_round_0_is_first_or_nothing_is(artefact: Artefact, tmp_path: Path) -> None:
    run = record(tmp_path / "run", artefact, {"round": 1, "prompt": "1" * 64, "accuracy": 0.4})
    lines = (run / "rounds.jsonl").read_text().splitlines(keepends=True)
    (run / "rounds.jsonl").write_text("".join(["{\n", *lines[1:]]))
    found = RunRecord.find(run, artefact)
    assert found is not None
    assert (found.first, found.last.round) == (None, 2)


def test_the_record_of_another_prompt_is_none(artefact: Artefact, tmp_path: Path) -> None:
    run = record(tmp_path / "run", artefact)
    changed = {name: array + np.float32(1e-6) for name, array in artefact.tensors.items()}
    assert RunRecord.find(run, replace(artefact, tensors=changed)) is None
    assert RunRecord.find(tmp_path / "nothing", artefact) is None


@pytest.mark.parametrize("name", ["rounds.jsonl", "settings.json"])
@pytest.mark.parametrize("damage", [b"\xff", b"[]", b"[" * 100_000, b"", b"3"])
def test_damage_leaves_out_what_is_lost(
    artefact: Artefact, tmp_path: Path, name: str, damage: bytes
) -> None:
    run = record(tmp_path / "run", artefact)
    (run / name).write_bytes(damage)
    found = RunRecord.find(run, artefact)
    if name == "rounds.jsonl":
        assert found is None
    else:
        assert found is not None
        assert found.settings == {}


NAMES = ("<script>", "[x](javascript:0)", "a\n# b\n---", "| c |", "`d")


def of(written: Exported, place: Path) -> Exported:
    """Return the report of a copy, or of a bundle, at a place."""
    if place.is_dir():
        path = place / "classifier.onnx"
        return replace(written, place=place, path=path, class_vector_difference=0.0)
    return replace(written, place=place, path=place)


def test_beside_a_file(written: Exported, artefact: Artefact, tmp_path: Path) -> None:
    path = Path(shutil.copy(written.path, tmp_path / "c.onnx"))
    card = write_card(of(written, path), artefact, None)
    assert card == card_of(path, folder=False) == tmp_path / "c.onnx.md"
    told = card.read_text()
    assert sha256_file(path) in told
    assert "| 1 | dög |" in told
    assert f"| 0 | {Classifier(path).metadata.classes[0]} |" in told
    assert yaml.safe_load(told.split("---\n")[1])["pipeline_tag"] == "image-classification"


def test_inside_a_bundle_which_stays_whole(
    bundle: Path, written: Exported, artefact: Artefact
) -> None:
    card = write_card(of(written, bundle), artefact, None)
    assert card == bundle / "README.md"
    told = card.read_text()
    head = yaml.safe_load(told.split("---\n")[1])
    assert head["pipeline_tag"] == "zero-shot-image-classification"
    assert sha256_file(bundle / "classifier.onnx") in told
    opened = Bundle(bundle)
    assert all(opened.read(name) for name in opened.manifest.files)


def test_sections_without_records_are_left_out(written: Exported, artefact: Artefact) -> None:
    card = write_card(written, artefact, None)
    told = card.read_text()
    card.unlink()  # the folder is the session's
    titles = [line for line in told.splitlines() if line.startswith("#")]
    assert titles == [
        "# Image classifier of 5 classes",
        *(f"## {name}" for name in ("File", "Model", "Classes", "Agreement with torch", "Ladder")),
        *(f"## {name}" for name in ("Tuning", "Privacy", "Limits")),
    ]


def test_names_of_strangers_stay_text(
    clip: FrozenClip, constants: Constants, artefact: Artefact, tmp_path: Path
) -> None:
    path, none = tmp_path / "c.onnx", np.zeros((0, 32, 32, 3), np.uint8)
    exported = write_classifier(path, clip, constants, NAMES, none)
    hostile = replace(artefact, metadata=artefact.metadata | {"template": "{}<img src=x>\n# c"})
    told = write_card(exported, hostile, None).read_text()
    page = (
        MarkdownIt("commonmark", {"html": True}).enable("table").render(told.split("---\n", 2)[2])
    )
    assert "<script" not in page
    assert "<img" not in page
    assert "<a " not in page
    assert page.count("<h1>") == 1
    assert page.count("<h2>") == 8
    assert Classifier(path).metadata.classes == NAMES


def test_what_lies_in_its_place_stays(bundle: Path, written: Exported, artefact: Artefact) -> None:
    first = write_card(of(written, bundle), artefact, None).read_bytes()
    assert write_card(of(written, bundle), artefact, None).read_bytes() == first
    (bundle / "README.md").write_text("# My project\n")
    with pytest.raises(StorageError, match=r"README\.md is there"):
        write_card(of(written, bundle), artefact, None)
    assert (bundle / "README.md").read_text() == "# My project\n"
    (bundle / "README.md").unlink()
    (bundle / "README.md").mkdir()
    with pytest.raises(StorageError, match=r"README\.md is there"):
        card_of(bundle, folder=True)
