"""``make demo``, whole: data, tuning, evaluation, export, verification, predictions, report."""

import json
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_demo_beats_zero_shot_and_leaves_everything(tmp_path: Path) -> None:
    done = subprocess.run(
        ["make", "demo", f"DEMO={tmp_path}"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    predictions = json.loads((tmp_path / "predictions.json").read_text())
    assert predictions["accuracy"] > predictions["zero_shot_accuracy"] + 0.05
    assert (tmp_path / "classifier.onnx").stat().st_size > 1e6
    assert "Information density" in (tmp_path / "report.html").read_text()
