"""The wheel in a clean environment with the edge extra alone: no torch, and images classified."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.edge import first_prediction, sizes
from export.fold.constants import Constants
from export.runtime import Classifier
from fedprompt.backbone.load import load_backbone
from fedprompt.prompts.template import Template
from fedprompt.settings.backbone import BackboneConfig
from tests.classifier_file import write_classifier

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
CLASSES = ("cat", "dog", "ship")
HEAVY = {"torch", "torchvision", "open_clip", "flwr", "onnx", "pydantic", "jaxtyping", "sklearn"}


def run(*command: object, folder: Path) -> str:
    done = subprocess.run([*map(str, command)], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder)
    run(*pip, ROOT, folder=folder)
    return next(folder.glob("fedprompt-*.whl"))


@pytest.fixture(scope="module")
def edge(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the programs of a fresh environment."""
    folder = tmp_path_factory.mktemp("edge")
    run(sys.executable, "-m", "venv", folder / "venv", folder=folder)
    programs = folder / "venv" / "bin"
    run(programs / "pip", "install", "--quiet", f"{wheel}[edge]", folder=folder)
    return programs


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Export a classifier in this environment, the one with torch."""
    clip = load_backbone(BackboneConfig(name="embedded-cnn", device="cpu"))
    with torch.inference_mode():
        constants = Constants.of(Template(clip, CLASSES, "a photo of a {}.").fold())
    size = clip.preprocessing.size
    pictures = np.random.default_rng(0).integers(0, 256, (4, size, size, 3), dtype=np.uint8)
    path = tmp_path_factory.mktemp("model") / "classifier.onnx"
    write_classifier(path, clip, constants, CLASSES, pictures, artefact_sha256="a" * 64)
    return path


@pytest.fixture(scope="module")
def photo(model: Path) -> Path:
    pixels = np.random.default_rng(1).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(model.parent / "photo.png")
    return model.parent / "photo.png"


def test_the_wheel_brings_every_file_it_needs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assets = {f"fedprompt/assets/{path.name}" for path in ROOT.glob("fedprompt/assets/*.*")}
    assert {"fedprompt/assets/embedded.safetensors", *assets} <= names
    assert {"server/run_folder/report/page.html", "server/run_folder/report/page.css"} <= names
    assert "export/targets/web/page/index.html" in names
    tops = {name.partition("/")[0] for name in names if ".dist-info" not in name}
    assert tops == {"fedprompt", "server", "client", "export"}


def test_the_edge_extra_brings_no_training(edge: Path) -> None:
    packages = json.loads(run(edge / "pip", "list", "--format=json", folder=edge))
    installed = {package["name"].lower().replace("-", "_") for package in packages}
    assert {"fedprompt", "numpy", "onnxruntime", "pillow", "typer"} <= installed
    assert not (HEAVY | {"open_clip_torch", "scikit_learn"}) & installed


def test_the_edge_extra_is_small_beside_its_libraries(edge: Path) -> None:
    """Ours, most of it the embedded weights, and what the command line needs."""
    weighed = sizes(edge.parent)
    libraries = sum(weighed.pop(name) for name in ("numpy", "onnxruntime", "pillow"))
    assert 10e6 < sum(weighed.values()) < 45e6 < libraries


def test_a_first_answer_is_timed_from_the_import(edge: Path, model: Path, photo: Path) -> None:
    opened, answered = first_prediction(edge.parent, model, photo)
    assert 0 < opened < answered


def test_python_classifies_as_here(edge: Path, model: Path, photo: Path) -> None:
    code = (
        "import sys; from export.runtime import Classifier; "
        f"[found] = Classifier({str(model)!r}).predict([{str(photo)!r}]); "
        "print(*found.classes, *found.probabilities, sep='|'); print(*sys.modules)"
    )
    answer, modules = run(edge / "python", "-I", "-c", code, folder=edge).splitlines()
    [expected] = Classifier(model).predict([photo])
    found = answer.split("|")
    assert tuple(found[:3]) == tuple(expected.classes)
    np.testing.assert_allclose([float(share) for share in found[3:]], expected.probabilities)
    assert not HEAVY & set(modules.split())


def test_the_commands_of_the_edge_work(edge: Path, model: Path, photo: Path) -> None:
    report = json.loads(run(edge / "fedprompt", "predict", model, photo, "--json", folder=edge))
    assert report["results"][0]["image"] == str(photo)
    assert {p["class"] for p in report["results"][0]["predictions"]} == set(CLASSES)
    assert json.loads(run(edge / "fedprompt", "verify", model, "--json", folder=edge))["probes"]
    findings = json.loads(run(edge / "fedprompt", "doctor", "--json", folder=edge))
    assert findings["missing"] == []
    assert "simulate" in run(edge / "fedprompt", "--help", folder=edge)


@pytest.mark.parametrize("verb", ["simulate", "train", "eval", "export x", "report x"])
def test_other_commands_say_what_is_missing(edge: Path, verb: str) -> None:
    done = subprocess.run([edge / "fedprompt", *verb.split()], capture_output=True, text=True)
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith("fedprompt: this command needs the package ")
    assert "pip install 'fedprompt[cpu]'" in line


def test_signatures_have_an_extra_of_their_own(edge: Path, model: Path) -> None:
    command = [edge / "fedprompt", "verify", model, "--public-key", model]
    done = subprocess.run(command, cwd=edge, capture_output=True, text=True)
    assert done.returncode == 1
    assert "pip install 'fedprompt[signing]'" in done.stderr
