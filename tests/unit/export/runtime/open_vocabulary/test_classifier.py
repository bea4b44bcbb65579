from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from export.fold.load import fold
from export.parity.check import reference_logits
from export.runtime import Classifier, OpenClassifier
from export.runtime.open_vocabulary.bundle import Bundle
from fedprompt.backbone.clip import FrozenClip
from fedprompt.errors import DataError, GraphError
from tests.prompts import CLASSES, serving, tuned

Images = npt.NDArray[np.uint8]


def test_classes_come_and_go_as_torch_would_serve_them(
    exported_bundle: Path, clip: FrozenClip, images: Images
) -> None:
    opened = OpenClassifier(exported_bundle, threads=1)
    assert opened.classes == CLASSES
    opened.add_class("red panda")
    opened.add_class("été 🙂")
    opened.remove_class("tench")
    names = ("great grey owl", "maple_tree", "red panda", "été 🙂")
    assert opened.classes == names
    expected = reference_logits(clip, fold(serving(tuned(clip), *names), clip), images)
    assert np.abs(opened.logits(images) - expected).max() < 1e-3
    found = opened.predict(list(images), top_k=9)
    assert [p.top for p in found] == [names[i] for i in expected.argmax(1)]
    assert len(found[0].classes) == 4


@pytest.mark.parametrize(
    ("name", "why"),
    [("tench", "twice"), ("great_grey_owl", "twice"), (" ", "empty"), ("Tench", "same words")],
)
def test_a_name_that_is_there_or_none_is_refused(
    exported_bundle: Path, name: str, why: str
) -> None:
    opened = OpenClassifier(exported_bundle, threads=1)
    with pytest.raises(DataError, match=why):
        opened.add_class(name)
    assert opened.classes == CLASSES


def test_names_are_of_one_unicode_form(exported_bundle: Path) -> None:
    opened = OpenClassifier(exported_bundle, threads=1)
    opened.add_class("cafe\u0301")
    assert opened.classes[-1] == "caf\u00e9"
    opened.remove_class("cafe\u0301")
    assert opened.classes == CLASSES


def test_a_class_that_is_missing_or_needed_stays(exported_bundle: Path) -> None:
    opened = OpenClassifier(exported_bundle, threads=1)
    with pytest.raises(DataError, match="no class 'owl'; there are 'great grey owl'"):
        opened.remove_class("owl")
    opened.remove_class("tench")
    with pytest.raises(DataError, match="at least two"):
        opened.remove_class("maple_tree")
    assert opened.classes == ("great grey owl", "maple_tree")


def test_saved_classes_are_a_version_and_others_are_forgotten(bundle: Path) -> None:
    opened = OpenClassifier(bundle, threads=1)
    opened.add_class("owl")
    assert opened.save() == 2
    opened.add_class("sea")
    assert OpenClassifier(bundle, threads=1).classes == (*CLASSES, "owl")
    assert opened.refresh() == 2
    assert opened.classes == (*CLASSES, "owl")
    Bundle(bundle).roll_back()
    assert opened.refresh() == 1
    assert opened.classes == CLASSES


def test_the_classifier_alone_asks_for_its_bundle(exported_bundle: Path, images: Images) -> None:
    alone = Classifier(exported_bundle / "classifier.onnx", threads=1)
    with pytest.raises(GraphError, match="OpenClassifier"):
        alone.logits(images)
    with pytest.raises(GraphError, match=r"takes \[classes 24\]"):
        alone.serve(("x", "y"), np.zeros((2, 3), np.float32))


def test_a_file_with_its_classes_inside_takes_no_others(classifier_file: Path) -> None:
    with pytest.raises(GraphError, match="takes none: export with --open-vocabulary"):
        Classifier(classifier_file).serve(("x",), np.zeros((1, 24), np.float32))


def test_what_somebody_else_changed_is_not_overwritten(bundle: Path) -> None:
    mine, theirs = (OpenClassifier(bundle, threads=1) for _ in range(2))
    theirs.remove_class("tench")
    assert theirs.save() == 2
    mine.remove_class("maple_tree")
    with pytest.raises(GraphError, match=r"version 2, these .* to version 1; refresh"):
        mine.save()
    assert Bundle(bundle).manifest.served.classes == ("great grey owl", "maple_tree")


def test_a_refresh_that_fails_leaves_what_is_served(bundle: Path) -> None:
    """A version whose file is damaged is neither served nor overwritten by a later save."""
    opened, theirs = (OpenClassifier(bundle, threads=1) for _ in range(2))
    theirs.remove_class("tench")
    theirs.save()
    (bundle / Bundle(bundle).manifest.served.tensors).write_bytes(b"damaged")
    with pytest.raises(GraphError, match="was changed"):
        opened.refresh()
    assert opened.classes == CLASSES
    with pytest.raises(GraphError, match="serves version 2"):
        opened.save()


def test_another_bundle_in_its_place_is_noticed(bundle: Path) -> None:
    opened = OpenClassifier(bundle, threads=1)
    path = bundle / "bundle.json"
    manifest = Bundle(bundle).manifest
    path.write_bytes(
        path.read_bytes().replace(manifest.files["tokenizer.json"].encode(), b"0" * 64)
    )
    with pytest.raises(GraphError, match=r"another tokenizer\.json than was loaded"):
        opened.refresh()
