from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from export.runtime import Classifier, OpenClassifier
from export.runtime.open import BUNDLE, classifier_of, is_bundle, open_exported
from export.runtime.open_vocabulary.bundle import CLASSIFIER, MANIFEST
from export.runtime.open_vocabulary.swap import swap
from export.targets.classifier import Exported
from export.targets.triton import write_repository
from export.targets.web.folder import FACTS
from fedprompt.backbone.clip import FrozenClip
from fedprompt.errors import GraphError
from tests.prompts import tuned


def test_a_file_and_each_folder_are_opened(
    written: Exported, exported_bundle: Path, tmp_path: Path, images: npt.NDArray[np.uint8]
) -> None:
    folder = write_repository(tmp_path / "birds", written.path.read_bytes())[0].parents[1]
    expected = Classifier(written.path, threads=1).logits(images)
    for path in (written.path, folder):
        opened = open_exported(path, threads=1)
        assert isinstance(opened, Classifier)
        np.testing.assert_array_equal(opened.logits(images), expected)
        assert opened.artefact_sha256 == "a" * 64
    assert isinstance(open_exported(exported_bundle, threads=1), OpenClassifier)


def test_of_a_bundle_the_prompt_that_is_served_counts(bundle: Path, clip: FrozenClip) -> None:
    first, second = tuned(clip), tuned(clip, seed=1)
    assert open_exported(bundle, threads=1).artefact_sha256 == first.sha256
    swap(bundle, second)
    assert open_exported(bundle, threads=1).artefact_sha256 == second.sha256


def test_what_is_not_ours_is_explained(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match=r"holds none of bundle\.json"):
        open_exported(tmp_path)
    with pytest.raises(GraphError, match="does not exist"):
        open_exported(tmp_path / "no")


def test_a_file_is_its_own_classifier(classifier_file: Path) -> None:
    assert classifier_of(classifier_file) == classifier_file
    assert not is_bundle(classifier_file)


def test_a_bundle_and_a_repository_are_known(
    exported_bundle: Path, written: Exported, tmp_path: Path
) -> None:
    assert BUNDLE == MANIFEST
    assert is_bundle(exported_bundle)
    assert classifier_of(exported_bundle) == exported_bundle / CLASSIFIER
    model = write_repository(tmp_path / "model", written.path.read_bytes())[0].parents[1]
    assert classifier_of(model) == model / "1" / "model.onnx"
    assert classifier_of(model).is_file()
    assert not is_bundle(model)


def test_a_page_is_known(tmp_path: Path) -> None:
    (tmp_path / FACTS).touch()
    assert classifier_of(tmp_path) == tmp_path / "classifier.onnx"


def test_what_is_not_ours_is_refused(tmp_path: Path) -> None:
    (tmp_path / "classifier.onnx").touch()
    with pytest.raises(GraphError, match=r"holds none of bundle\.json"):
        classifier_of(tmp_path)
    with pytest.raises(GraphError, match=r"no\.onnx does not exist"):
        classifier_of(tmp_path / "no.onnx")
