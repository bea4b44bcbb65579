"""Trials on a small CLIP and a folder of small images; federations are the test's own."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fedprompt.backbone.clip import FrozenClip
from fedprompt.experiments import setup
from fedprompt.experiments.protocols import trial
from fedprompt.experiments.protocols.trial import Trial
from fedprompt.settings.run_config import RunConfig
from fedprompt.settings.section import Flat
from tests.pictures import image_folder

CLASSES = ("ant", "bee", "cat", "dog", "emu")  # base: the first three
MakeTrial = Callable[..., Trial]


@pytest.fixture(autouse=True)
def small(clip: FrozenClip, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every backbone be the small one."""
    monkeypatch.setattr(setup, "shared_backbone", lambda config: clip)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Ten images a class to train on and six to test on."""
    image_folder(tmp_path / "photos" / "train", CLASSES, 10)
    return image_folder(tmp_path / "photos" / "test", CLASSES, 6, size=50).parent


@pytest.fixture
def make_trial(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeTrial:
    """Return a trial of some settings, whose federations fail."""

    def unwanted(config: RunConfig) -> None:
        pytest.fail("a federation was run")

    def make(federate=unwanted, targets=None, **changes: str | float) -> Trial:
        monkeypatch.setattr(trial, "federate", federate)
        own = {key.replace("__", ".", 1): value for key, value in changes.items()}
        given: Flat = {"data.source": str(photos), "fit.epochs": 2, **own}
        return Trial(
            config=RunConfig.parse(given),
            folder=tmp_path / "trial",
            targets=targets or {},
        )

    return make
