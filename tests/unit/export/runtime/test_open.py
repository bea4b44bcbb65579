from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from export.runtime import Classifier, OpenClassifier
from export.runtime.open import open_exported
from export.runtime.open_vocabulary.swap import swap
from export.targets.classifier import Written
from export.targets.triton import write_repository
from fedprompt.backbone.clip import FrozenClip
from fedprompt.errors import GraphError
from tests.prompts import tuned


def test_a_file_and_each_folder_are_opened(
    written: Written, exported_bundle: Path, tmp_path: Path, images: npt.NDArray[np.uint8]
) -> None:
    folder = write_repository(tmp_path / "birds", written.path)
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
