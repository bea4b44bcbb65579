import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import export.targets.web.folder
from export.fold.constants import Constants
from export.parity.compare import probe_images
from export.precision import Recipe
from export.runtime.metadata import GraphMetadata
from export.runtime.safety.safe_graph import read_model
from export.runtime.session import open_classifier
from export.targets.classifier import Exported
from export.targets.web import write_page
from fedprompt.backbone.clip import FrozenClip
from fedprompt.data.decode import MAX_PIXELS
from fedprompt.errors import GraphError, StorageError
from fedprompt.identity import sha256_bytes
from tests.classifier_file import write_classifier

CLASSES = ("cat", "dög", "sheep", "cow", "</script>")
RUNTIME = {"wasm.js": b"module", "wasm.wasm": b"\0asm"}

Model = tuple[bytes, GraphMetadata]


@pytest.fixture(scope="module")
def model(
    clip: FrozenClip, constants: Constants, tmp_path_factory: pytest.TempPathFactory
) -> Model:
    path = tmp_path_factory.mktemp("graph") / "c.onnx"
    nothing = np.zeros((0, 32, 32, 3), np.uint8)
    write_classifier(
        path,
        clip,
        constants,
        CLASSES,
        nothing,
        artefact_sha256="a" * 64,
        recipe=Recipe("portable", "fp32"),
    )
    return read_model(path), open_classifier(read_model(path), provider="cpu")[1]


@pytest.fixture(autouse=True)
def runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export.targets.web.folder, "runtime_files", lambda: dict(RUNTIME))


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_folder_holds_page_graph_and_runtime(model: Model, tmp_path: Path) -> None:
    path, line = write_page(tmp_path / "page", model[0])
    written = contents(tmp_path / "page")
    assert path == tmp_path / "page" / "classifier.onnx"
    assert line.endswith(f"{sum(map(len, written.values())) / 1e6:.1f} MB")
    assert written["classifier.onnx"] == model[0]
    assert {name: written[f"runtime/{name}"] for name in RUNTIME} == RUNTIME
    assert written["index.html"].startswith(b"<!doctype html>")


def test_the_facts_are_those_of_the_file(model: Model, tmp_path: Path) -> None:
    write_page(tmp_path / "page", model[0])
    facts = json.loads((tmp_path / "page" / "classifier.json").read_text("utf-8"))
    probes = model[1].probes
    assert probes is not None
    assert facts == {
        "classes": list(CLASSES),
        "size": 32,
        "interpolation": "bicubic",
        "resize_mode": "shortest",
        "fill": 0,
        "max_pixels": MAX_PIXELS,
        "model": {"bytes": len(model[0]), "sha256": sha256_bytes(model[0])},
        "probe_logits": [float(value) for value in probes.logits[3]],
        "backbone": "tiny",
        "version": model[1].version,
    }
    assert (tmp_path / "page" / "probe.bin").read_bytes() == probe_images(0, 4, 32)[3].tobytes()


def test_every_file_that_the_page_names_is_there(model: Model, tmp_path: Path) -> None:
    write_page(tmp_path / "page", model[0])
    written = contents(tmp_path / "page")
    html = written["index.html"].decode()
    named = re.findall(r'(?:href|src)="([^"]+)"', html)
    for name, content in written.items():
        if name.endswith(".js") and "/" not in name:
            named += re.findall(r'from "\./([^"]+)"', content.decode())
    assert {"page.js", "page.css", "icon.svg", "decode.js", "resize.js"} <= set(named)
    assert set(named) <= set(written)


def test_the_policy_lets_nothing_out(model: Model, tmp_path: Path) -> None:
    write_page(tmp_path / "page", model[0])
    html = (tmp_path / "page" / "index.html").read_text()
    [policy] = re.findall(r'Content-Security-Policy" content="([^"]+)"', html)
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["form-action"] == "'none'"
    allowed = {word for rule in rules.values() for word in rule.split()}
    assert allowed == {"'none'", "'self'", "'wasm-unsafe-eval'", "blob:"}
    assert "<script>" not in html
    assert "style=" not in html


def test_a_page_is_written_again_over_the_old_one(model: Model, tmp_path: Path) -> None:
    write_page(tmp_path, model[0])
    first = contents(tmp_path)
    (tmp_path / "index.html").write_text("older")
    write_page(tmp_path, model[0])
    assert contents(tmp_path) == first


def test_another_folder_is_left_alone(model: Model, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("somebody's site")
    with pytest.raises(StorageError, match="holds other files"):
        write_page(tmp_path, model[0])
    assert contents(tmp_path) == {"index.html": b"somebody's site"}
    with pytest.raises(StorageError, match="is a file"):
        write_page(tmp_path / "index.html", model[0])


def test_a_graph_that_browsers_cannot_run_is_refused(written: Exported, tmp_path: Path) -> None:
    data = read_model(written.path)
    with pytest.raises(GraphError, match="'ort', with operators that browsers lack"):
        write_page(tmp_path / "page", data)
    assert not (tmp_path / "page").exists()


def test_a_white_level_that_browsers_do_not_know_is_refused(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = replace(model[1], white_level=4095)
    monkeypatch.setattr(export.targets.web.folder, "open_classifier", lambda *_, **__: (0, changed))
    with pytest.raises(GraphError, match=r"data\.white_level = 4095, and browsers"):
        write_page(tmp_path / "page", model[0])


def test_a_file_without_probes_is_refused(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = replace(model[1], probes=None)
    monkeypatch.setattr(export.targets.web.folder, "open_classifier", lambda *_, **__: (0, changed))
    with pytest.raises(GraphError, match="holds no probes"):
        write_page(tmp_path / "page", model[0])
