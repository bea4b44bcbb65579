import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from export.fold.constants import Constants
from export.parity.check import reference_logits
from export.runtime import Classifier
from export.runtime.classifier import rank
from export.targets.classifier import Exported
from fedprompt.backbone.clip import FrozenClip
from fedprompt.data.decode import decode
from fedprompt.data.preprocess import fit_to_input
from fedprompt.errors import ConfigError, DataError, GraphError
from tests.classifier_file import write_classifier

Vectors = npt.NDArray[np.float32]
Images = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def classifier(written: Exported) -> Classifier:
    return Classifier(written.path, threads=1)


@pytest.fixture(scope="module")
def photo() -> Images:
    return np.random.default_rng(3).integers(0, 256, (50, 40, 3), dtype=np.uint8)


def png(pixels: npt.NDArray[np.generic]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_paths_bytes_pillow_images_and_arrays_agree(
    classifier: Classifier, photo: Images, tmp_path: Path
) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(png(photo))
    found = classifier.predict([path, str(path), png(photo), Image.fromarray(photo), photo])
    assert [p.name for p in found[:3]] == [str(path), str(path), "image 2"]
    assert len({(p.classes, p.probabilities) for p in found}) == 1


def test_the_edge_decodes_16_bits_with_the_white_level_of_the_training(
    clip: FrozenClip, constants: Constants, classifier: Classifier, tmp_path: Path
) -> None:
    names, none = classifier.classes, np.zeros((0, 32, 32, 3), np.uint8)
    path = tmp_path / "c.onnx"
    write_classifier(path, clip, constants, names, none, artefact_sha256="a" * 64, white_level=4095)
    told = Classifier(path, threads=1)
    wide = np.random.default_rng(4).integers(0, 4096, (40, 40), dtype=np.uint16)
    content = png(wide)
    shown = decode(content, white_level=4095)
    assert shown.max() == 255
    assert told.predict([content, Image.fromarray(wide), shown]) != classifier.predict([content])
    found = told.predict([content, Image.fromarray(wide), shown])
    assert len({one.probabilities for one in found}) == 1


def test_probabilities_are_torch_s_softmax(
    classifier: Classifier, clip: FrozenClip, constants: Constants, photo: Images
) -> None:
    fitted = fit_to_input(photo, clip.preprocessing)[None]
    logits = reference_logits(clip, constants, fitted)[0].astype(np.float64)
    expected = np.exp(logits) / np.exp(logits).sum()
    (found,) = classifier.predict([photo], top_k=99)
    assert found.top == classifier.classes[int(expected.argmax())]
    assert sum(found.probabilities) == pytest.approx(1)
    assert list(found.probabilities) == sorted(found.probabilities, reverse=True)
    shares = dict(zip(found.classes, found.probabilities, strict=True))
    for name, share in zip(classifier.classes, expected, strict=True):
        assert shares[name] == pytest.approx(share, rel=1e-4)


def test_the_batch_size_changes_nothing(classifier: Classifier, images: Images) -> None:
    whole = classifier.predict(list(images), batch_size=8)
    split = classifier.predict(list(images), batch_size=3)
    assert [p.name for p in whole] == [p.name for p in split]
    for one, other in zip(whole, split, strict=True):
        assert one.classes == other.classes
        assert one.probabilities == pytest.approx(other.probabilities, rel=1e-4)
    assert classifier.predict([]) == []
    assert classifier.logits(images[:0]).shape == (0, 5)


def test_the_choice_of_provider_is_shown(classifier: Classifier) -> None:
    assert classifier.providers == ("CPUExecutionProvider",)


def test_json_values(classifier: Classifier, photo: Images) -> None:
    (found,) = classifier.predict([photo], top_k=2)
    values = found.to_dict()
    assert values["image"] == "image 0"
    assert [p["class"] for p in values["predictions"]] == list(found.classes)


def test_an_unreadable_image_is_named(classifier: Classifier, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"\xff\xd8\xff\xe0 no picture")
    with pytest.raises(DataError, match=r"bad\.jpg"):
        classifier.predict([bad])
    with pytest.raises(DataError, match=r"missing\.jpg"):
        classifier.predict([tmp_path / "missing.jpg"])


def test_one_image_outside_a_list_is_explained(classifier: Classifier) -> None:
    with pytest.raises(DataError, match=r"predict\(\[image\]\)"):
        classifier.predict("photo.jpg")
    with pytest.raises(DataError, match="top_k"):
        classifier.predict([], top_k=0)


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((1, 32, 32, 3), np.float32), np.zeros((32, 32, 3), np.uint8), np.uint8(3)],
)
def test_logits_refuse_another_dtype_or_shape(classifier: Classifier, wrong: Images) -> None:
    with pytest.raises(DataError, match="expected uint8"):
        classifier.logits(wrong)


def test_a_class_list_that_was_changed_is_refused(classifier_file: Path, tmp_path: Path) -> None:
    data = classifier_file.read_bytes().replace(b'["cat",', b'["rat",', 1)
    shorter = tmp_path / "changed.onnx"
    shorter.write_bytes(data)
    with pytest.raises(GraphError, match="names or their order"):
        Classifier(shorter)


def test_the_runtime_loads_nothing_heavy(classifier_file: Path, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(png(np.zeros((40, 40, 3), np.uint8)))
    script = f"""
import sys
from export.runtime import Classifier
from export.parity.verify import verify
classifier = Classifier({str(classifier_file)!r}, threads=1)
classifier.predict([{str(tmp_path / "photo.png")!r}])
assert verify(classifier).holds
heavy = {{"torch", "onnx", "pydantic", "flwr", "typer", "rich", "open_clip", "safetensors"}}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
    assert done.stderr == ""


def test_warming_up_computes_the_first_and_the_largest_batch(
    classifier_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier = Classifier(classifier_file, threads=1)
    counts = []
    original = classifier.logits
    monkeypatch.setattr(classifier, "logits", lambda x: (counts.append(len(x)), original(x))[1])
    classifier.warm_up(6)
    assert counts == [6, 1]
    classifier._graphs = (1, 2, 4, 8)
    counts.clear()
    classifier.warm_up(6)
    assert counts == [6, 4, 2, 1]


def test_larger_images_are_taken_up_to_a_bound_of_ones_own(
    written: Exported, photo: Images
) -> None:
    height, width, _ = photo.shape
    classifier = Classifier(written.path, threads=1, max_pixels=height * width)
    classifier.predict([png(photo)])
    with pytest.raises(DataError, match=f"more than max_pixels = {height * width}"):
        classifier.predict([png(np.zeros((height + 1, width, 3), np.uint8))])
    for wrong in (0, -1, 200_000_000):
        with pytest.raises(ConfigError, match=f"max_pixels = {wrong}; expected 1 to"):
            Classifier(written.path, threads=1, max_pixels=wrong)


def test_large_logits_do_not_overflow() -> None:
    found = rank("x", np.array([1e4, 1e4, -1e4], np.float32), ("a", "b", "c"), 3)
    assert found.classes == ("a", "b", "c")  # a tie keeps the order of the classes
    assert found.probabilities == pytest.approx((0.5, 0.5, 0.0))


def test_top_k() -> None:
    found = rank("x", np.array([0, 1, 2], np.float32), ("a", "b", "c"), 1)
    assert (found.top, len(found.probabilities)) == ("c", 1)
