import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from markdown_it import MarkdownIt

from export.fold.constants import Constants
from export.runtime import Classifier
from export.runtime.open_vocabulary.bundle import Bundle
from export.targets.card.write import card_of, write_card
from export.targets.classifier import Written, write_classifier
from fedprompt.artefact import Artefact
from fedprompt.backbone.clip import FrozenClip
from fedprompt.errors import GraphError, StorageError
from fedprompt.identity import sha256_file
from tests.prompts import tuned

HOSTILE = ("<script>", "[x](javascript:0)", "a\n# b\n---", "| c |", "`d")


@pytest.fixture
def artefact(clip: FrozenClip) -> Artefact:
    return tuned(clip)


def test_beside_a_file(classifier_file: Path, artefact: Artefact, tmp_path: Path) -> None:
    path = Path(shutil.copy(classifier_file, tmp_path / "c.onnx"))
    card = write_card(path, artefact, None)
    assert card == card_of(path, folder=False) == tmp_path / "c.onnx.md"
    told = card.read_text()
    assert sha256_file(path) in told
    assert "| 1 | dög |" in told
    assert f"| 0 | {Classifier(path).metadata.classes[0]} |" in told
    assert yaml.safe_load(told.split("---\n")[1])["pipeline_tag"] == "image-classification"


def test_inside_a_bundle_which_stays_whole(bundle: Path, artefact: Artefact) -> None:
    card = write_card(bundle, artefact, None)
    assert card == bundle / "README.md"
    told = card.read_text()
    head = yaml.safe_load(told.split("---\n")[1])
    assert head["pipeline_tag"] == "zero-shot-image-classification"
    assert sha256_file(bundle / "classifier.onnx") in told
    opened = Bundle(bundle)
    assert all(opened.read(name) for name in opened.manifest.files)


def test_sections_without_records_are_left_out(written: Written, artefact: Artefact) -> None:
    card = write_card(written.path, artefact, None)
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
    write_classifier(path, clip, constants, HOSTILE, none, artefact_sha256="a" * 64)
    hostile = replace(artefact, metadata=artefact.metadata | {"template": "{}<img src=x>\n# c"})
    told = write_card(path, hostile, None).read_text()
    page = (
        MarkdownIt("commonmark", {"html": True}).enable("table").render(told.split("---\n", 2)[2])
    )
    assert "<script" not in page
    assert "<img" not in page
    assert "<a " not in page
    assert page.count("<h1>") == 1
    assert page.count("<h2>") == 8
    assert Classifier(path).metadata.classes == HOSTILE


def test_what_lies_in_its_place_stays(bundle: Path, artefact: Artefact) -> None:
    first = write_card(bundle, artefact, None).read_bytes()
    assert write_card(bundle, artefact, None).read_bytes() == first
    (bundle / "README.md").write_text("# My project\n")
    with pytest.raises(StorageError, match=r"README\.md is there"):
        write_card(bundle, artefact, None)
    assert (bundle / "README.md").read_text() == "# My project\n"
    (bundle / "README.md").unlink()
    (bundle / "README.md").mkdir()
    with pytest.raises(StorageError, match=r"README\.md is there"):
        card_of(bundle, folder=True)


def test_what_is_not_ours_has_no_card(artefact: Artefact, tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="does not exist"):
        write_card(tmp_path / "no.onnx", artefact, None)
    assert not list(tmp_path.iterdir())
