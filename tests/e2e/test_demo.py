"""``make demo``, whole: data, tuning, evaluation, export, verification, predictions, report."""

import json
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_demo_beats_zero_shot_and_leaves_everything(tmp_path: Path) -> None:
    demo = tmp_path / "demo"
    done = subprocess.run(
        ["make", "demo", f"DEMO={demo}"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    predictions = json.loads((demo / "predictions.json").read_text())
    assert predictions["accuracy"] > predictions["zero_shot_accuracy"] + 0.2
    assert (demo / "classifier.onnx").stat().st_size > 1e6
    page = (demo / "report.html").read_text()
    assert "Information density" in page
    assert "What was won" in page
    assert "against coop" in page or "than coop" in page or "as coop" in page
