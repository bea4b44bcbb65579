import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import export.fold.load
from export.runtime.commands.predict import predict
from export.runtime.commands.rollback import rollback
from export.runtime.commands.swap import swap
from export.runtime.commands.verify import verify
from export.runtime.open_vocabulary.bundle import Bundle
from export.targets.commands import export as export_command
from fedprompt.backbone.clip import FrozenClip
from fedprompt.command_line import command
from fedprompt.errors import ArtefactError, DataError, GraphError, ParityError
from tests.prompts import CLASSES, tuned


def call(function: Any, *arguments: object) -> str:
    result = CliRunner().invoke(command("x", function), [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 44, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_export_verify_predict_swap_roll_back(
    clip: FrozenClip, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export.fold.load, "load_backbone", lambda config: clip)
    for seed in (0, 1):
        tuned(clip, seed=seed).save(tmp_path / f"run-{seed}" / "artefact")
    bundle, runs = tmp_path / "bundle", [tmp_path / "run-0", tmp_path / "run-1"]
    written = json.loads(call(export_command, runs[0], "--open-vocabulary", "-o", bundle, "--json"))
    assert written["output"] == str(bundle)
    assert written["card"] == str(bundle / "README.md")
    assert written["class_vectors_largest"] < 1e-5
    checked = json.loads(call(verify, bundle, "--json"))
    assert checked["probes"]["holds"]
    assert checked["structure"].count("all allowed") == 2
    assert "class vectors: largest difference" in call(verify, bundle)

    found = json.loads(call(predict, bundle, photo, "--add-class", "red panda", "--json"))
    [result] = found["results"]
    assert {p["class"] for p in result["predictions"]} == {*CLASSES, "red panda"}

    before = call(predict, bundle, photo, "--json")
    swapped = json.loads(call(swap, bundle, runs[1], "--json"))
    assert swapped["version"] == 2
    assert swapped["artefact_sha256"] == tuned(clip, seed=1).sha256
    assert call(predict, bundle, photo, "--json") != before
    back = json.loads(call(rollback, bundle, "--json"))
    assert back["version"] == 1
    assert back["artefact_sha256"] == tuned(clip).sha256
    assert call(predict, bundle, photo, "--json") == before
    assert "version 3" in call(swap, bundle, runs[1])


def test_what_is_wrong_is_said(bundle: Path, clip: FrozenClip, tmp_path: Path, photo: Path) -> None:
    tuned(clip, "coop").save(tmp_path / "artefact")
    with pytest.raises(ArtefactError, match="method is coop, the bundle's dip"):
        call(swap, bundle, tmp_path / "artefact")
    with pytest.raises(GraphError, match="none before it"):
        call(rollback, bundle)
    with pytest.raises(DataError, match="a class name is empty"):
        call(predict, bundle, photo, "--add-class", "__")
    with pytest.raises(DataError, match="takes no --add-class"):
        call(predict, bundle / "classifier.onnx", photo, "--add-class", "owl")


def test_class_vectors_that_drift_fail_verification(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import export.parity.verify_bundle

    monkeypatch.setattr(export.parity.verify_bundle, "VECTOR_BOUND", -1.0)
    with pytest.raises(ParityError, match="class vectors differ"):
        call(verify, bundle)
    assert Bundle(bundle).manifest.current == 1
