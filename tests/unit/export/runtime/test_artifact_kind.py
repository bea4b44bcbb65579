from pathlib import Path

import pytest

from export.runtime.artifact_kind import BUNDLE, classifier_of, is_bundle
from export.runtime.open_vocabulary.bundle import CLASSIFIER, MANIFEST
from export.targets.classifier import Written
from export.targets.triton import write_repository
from export.targets.web.folder import FACTS
from fedprompt.errors import GraphError


def test_a_file_is_its_own_classifier(classifier_file: Path) -> None:
    assert classifier_of(classifier_file) == classifier_file
    assert not is_bundle(classifier_file)


def test_a_bundle_and_a_repository_are_known(
    exported_bundle: Path, written: Written, tmp_path: Path
) -> None:
    assert BUNDLE == MANIFEST
    assert is_bundle(exported_bundle)
    assert classifier_of(exported_bundle) == exported_bundle / CLASSIFIER
    model = write_repository(tmp_path / "model", written.path)
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
