from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.server.run_folder.report.made_up_run import artefact, lines, predictions, write


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a whole run; ``None`` leaves a part out."""

    def make(**changes: Any) -> Path:
        parts = {"found": lines(), "prompt": artefact(), "predicted": predictions()} | changes
        kept = {key: value for key, value in parts.items() if value is not None}
        folder = tmp_path / "demo"
        folder.mkdir()
        return write(folder, kept.pop("found", []), **kept)

    return make
