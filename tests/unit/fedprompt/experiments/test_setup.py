from pathlib import Path

import pytest
import torch

from fedprompt.artefact import Artefact
from fedprompt.backbone.clip import FrozenClip
from fedprompt.data.decode import decode
from fedprompt.data.preprocess import fit_to_input
from fedprompt.errors import DataError
from fedprompt.experiments import setup as module
from fedprompt.experiments.setup import of_artefact, open_experiment
from fedprompt.prompts.artefacts import to_artefact
from fedprompt.prompts.template import Template
from fedprompt.settings.backbone import BackboneConfig
from fedprompt.settings.run_config import RunConfig
from tests.pictures import image_folder

CLASSES = ("cat", "dog")


@pytest.fixture
def asked(clip: FrozenClip, monkeypatch: pytest.MonkeyPatch) -> list[BackboneConfig]:
    """Stand in for the loader, and keep what it was asked for."""
    configs: list[BackboneConfig] = []
    monkeypatch.setattr(module, "shared_backbone", lambda config: configs.append(config) or clip)
    return configs


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return image_folder(tmp_path / "photos", CLASSES, 5)


@pytest.fixture
def artefact(clip: FrozenClip) -> Artefact:
    prompt = Template(clip, CLASSES, "an X-ray of a {}.")
    return to_artefact(clip, prompt, CLASSES, "an X-ray of a {}.", round=1, seed=0)


def test_it_opens_what_the_settings_name(asked: list[BackboneConfig], photos: Path) -> None:
    bench = open_experiment(
        RunConfig.parse({"data.source": str(photos), "backbone.name": "ViT-B-16", "fit.batch": 7})
    )
    assert [config.name for config in asked] == ["ViT-B-16"]
    assert bench.fit.batch == 7
    assert bench.train.classes == bench.test.classes == CLASSES
    assert len(bench.train) + len(bench.test) == 10


@pytest.mark.parametrize("cache", [True, False])
def test_features_are_clips_own_in_order(
    asked: list[BackboneConfig], photos: Path, clip: FrozenClip, own_cache: Path, cache: bool
) -> None:
    bench = open_experiment(RunConfig.parse({"data.source": str(photos), "fit.cache": cache}))
    images, labels = bench.encode(bench.test)
    assert labels.tolist() == bench.test.labels.tolist()
    pixels = [
        fit_to_input(decode(bench.test.content(i)), clip.preprocessing)
        for i in range(len(bench.test))
    ]
    batch = torch.stack([torch.from_numpy(p) for p in pixels])
    with torch.no_grad():
        expected = clip.encode_image(clip.normalise(batch))
    expected = torch.nn.functional.normalize(expected, dim=-1)
    # one batch of another size: the same sums in another order
    torch.testing.assert_close(images.features, expected, rtol=1e-5, atol=1e-6)
    assert (own_cache / "features").exists() is cache


def test_no_images_are_refused(asked: list[BackboneConfig], photos: Path) -> None:
    bench = open_experiment(RunConfig.parse({"data.source": str(photos)}))
    with pytest.raises(DataError, match=r"there are no images to train on; check data\.source"):
        bench.encode(bench.test.subset([]))


def test_an_artefact_names_its_own_backbone_and_template(artefact: Artefact) -> None:
    assert of_artefact({}, artefact) == {
        "backbone.name": "tiny",
        "backbone.pretrained": "",
        "data.template": "an X-ray of a {}.",
    }


def test_settings_win_over_the_artefact(artefact: Artefact) -> None:
    """The checkpoint file lies elsewhere on each machine."""
    given = {"backbone.pretrained": "/models/tiny.pt", "data.limit": 3}
    assert of_artefact(given, artefact) == given | {
        "backbone.name": "tiny",
        "data.template": "an X-ray of a {}.",
    }
