"""What a site that only classifies installs and waits for: ``python -m benchmarks.edge [--json]``.

The wheel with its extra ``edge`` goes into a fresh environment; a classifier of the embedded
backbone is exported here and answers there, each time in a new process.
"""

import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.console import run, show
from export.fold.constants import Constants
from export.fold.load import no_images
from export.targets.classifier import Content, export_classifier
from fedprompt.backbone.load import load_backbone
from fedprompt.data.fashion_mnist import CLASSES
from fedprompt.prompts.template import zero_shot_vectors
from fedprompt.settings.backbone import BackboneConfig

ROOT = Path(__file__).parents[1]
PROCESSES = 15
TOOLS = {"pip", "setuptools"}  # of the environment, not of what is installed
FIRST = """
import sys, time
began = time.perf_counter()
from export.runtime import Classifier
classifier = Classifier(sys.argv[1], provider="cpu")
imported = time.perf_counter()
classifier.predict([sys.argv[2]])
print(imported - began, time.perf_counter() - began)
"""


def download(folder: Path) -> list[Path]:
    """Fetch what the extra ``edge`` needs, as wheels, and build fedprompt's own."""
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--wheel-dir", folder)
    subprocess.run([*pip, f"{ROOT}[edge]"], check=True)
    return list(folder.glob("*.whl"))


def install(wheels: list[Path], environment: Path) -> None:
    """Make an environment of these wheels alone, as pip does it: bytecode included."""
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    pip = (environment / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-index")
    subprocess.run([*pip, "--no-deps", *wheels], check=True)


def sizes(environment: Path) -> dict[str, int]:
    """Return the bytes of every package of an environment, by name, largest first."""
    packages = next(environment.glob("lib/python*/site-packages"))
    found: dict[str, int] = defaultdict(int)
    for package in distributions(path=[str(packages)]):
        found[package.metadata["Name"].lower()] += _size(package)
    kept = {name: size for name, size in found.items() if name not in TOOLS}
    return dict(sorted(kept.items(), key=lambda item: -item[1]))


def _size(package: Distribution) -> int:
    paths = (Path(str(package.locate_file(file))) for file in package.files or ())
    return sum(path.stat().st_size for path in paths if path.is_file())


def classifier(folder: Path) -> tuple[Path, Path]:
    """Export the embedded backbone with the classes of Fashion-MNIST; return it and a photo."""
    clip = load_backbone(BackboneConfig(name="embedded", device="cpu"))
    vectors = zero_shot_vectors(clip, CLASSES, "a photo of a {}.").detach().numpy()
    model, photo = folder / "classifier.onnx", folder / "photo.jpg"
    content = Content(clip=clip, constants=Constants(class_vectors=vectors), classes=CLASSES)
    export_classifier(model, content, no_images(clip.preprocessing))
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((512, 512), Image.Resampling.BICUBIC).save(photo)
    return model, photo


def first_prediction(environment: Path, model: Path, photo: Path) -> tuple[float, float]:
    """Return seconds from before the import to an open classifier, and to its first answer."""
    command = [environment / "bin" / "python", "-I", "-c", FIRST, model, photo]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    opened, answered = map(float, done.stdout.split())
    return opened, answered


def measure() -> Mapping[str, Any]:
    """Install, weigh, and ask for a first answer in new processes."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        wheels, environment = download(folder / "wheels"), folder / "venv"
        install(wheels, environment)
        fetched = sum(wheel.stat().st_size for wheel in wheels) / 1e6
        weighed = sizes(environment)
        model, photo = classifier(folder)
        first_prediction(environment, model, photo)  # what the disk has not read yet
        asked = [first_prediction(environment, model, photo) for _ in range(PROCESSES)]
    opened, answered = (statistics.median(times) for times in zip(*asked, strict=True))
    total = sum(weighed.values()) / 1e6
    rows = [(name, size / 1e6) for name, size in list(weighed.items())[:8]]
    show(f"Installed {total:.0f} MB, fetched {fetched:.0f}", ("package", "MB"), rows)
    slowest = max(last for _, last in asked)
    timed = [("classifier open", opened), ("first answer", answered), ("slowest", slowest)]
    show(f"Seconds from before the import, median of {PROCESSES}", ("until", "s"), timed)
    return {
        "installed_mb": total,
        "fetched_mb": fetched,
        "first_prediction_seconds": answered,
        "first_prediction_seconds_slowest": slowest,
        "classifier_open_seconds": opened,
    }


if __name__ == "__main__":
    run(measure)
