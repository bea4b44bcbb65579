"""What docs/extending.md shows does what it says."""

import re
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest

from export.fold.constants import Constants
from export.fold.load import no_images
from export.runtime import Classifier
from export.targets import TARGETS
from export.targets.classifier import Content, export_classifier
from tests.conftest import tiny_clip

PAGE = (Path(__file__).parents[3] / "docs/extending.md").read_text(encoding="utf-8")


def code_of(heading: str) -> str:
    """Return the Python code of a section."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return "\n".join(re.findall(r"```python\n(.*?)```", section, flags=re.S))


def test_an_export_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("export.targets.TARGETS", dict(TARGETS))
    names: dict[str, Any] = {}
    exec(code_of("An export target"), names)  # noqa: S102 - our own page
    target = names["TARGETS"]["zip"]
    clip = tiny_clip()
    content = Content(
        clip=clip,
        constants=Constants(class_vectors=np.eye(3, 24, dtype=np.float32)),
        classes=("a", "b", "c"),
    )
    exported = export_classifier(
        tmp_path / target.output,
        content,
        no_images(clip.preprocessing),
        target.recipes["fp32"],
        write=target.write,
    )
    assert target.is_folder
    assert str(exported).endswith("a classifier and its archive")
    assert Classifier(exported.path).classes == ("a", "b", "c")
    with ZipFile(exported.place / "classifier.zip") as archive:
        assert archive.read("classifier.onnx") == exported.path.read_bytes()
    assert "zip" not in TARGETS
