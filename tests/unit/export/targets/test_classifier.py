import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import numpy_helper

import export.targets.classifier
from export.fold.constants import Constants
from export.graph.fuse import fuse
from export.parity.check import reference_logits
from export.parity.compare import probe_images
from export.runtime import Classifier
from export.runtime.metadata import GraphMetadata
from export.targets.classifier import Exported
from fedprompt.backbone.clip import FrozenClip
from fedprompt.errors import GraphError, ParityError
from tests.classifier_file import write_classifier

Images = npt.NDArray[np.uint8]
CLASSES = ("a", "b", "c", "d", "e")


def properties(path: Path) -> dict[str, str]:
    return {p.key: p.value for p in onnx.load(path).metadata_props}


def test_one_file_with_everything_in_it(
    written: Exported, clip: FrozenClip, images: Images, constants: Constants
) -> None:
    assert [p.name for p in written.path.parent.iterdir()] == ["classifier.onnx"]
    onnx.checker.check_model(str(written.path), full_check=True)
    metadata = GraphMetadata.from_properties(properties(written.path))
    assert metadata.backbone["sha256"] == clip.fingerprint
    assert metadata.tokenizer_sha256 == clip.tokenizer_fingerprint
    assert metadata.artefact_sha256 == "a" * 64
    assert metadata.folded == {"class_vectors": [5, 24]}
    assert (metadata.opset, metadata.flavour) == (20, "ort")
    assert metadata.logit_scale == pytest.approx(clip.logit_scale)
    assert metadata.parity is not None
    assert metadata.parity["images"]["images"] == len(images)
    assert metadata.parity["forced"] is False
    assert metadata.probes is not None
    expected = reference_logits(clip, constants, probe_images(0, 8, 32))
    np.testing.assert_array_equal(metadata.probes.logits, expected)


def test_without_real_images_the_probes_alone_are_measured(
    clip: FrozenClip, constants: Constants, tmp_path: Path
) -> None:
    none = np.zeros((0, 32, 32, 3), np.uint8)
    found = write_classifier(
        tmp_path / "c.onnx", clip, constants, CLASSES, none, artefact_sha256=""
    )
    assert found.conversion.parity is None
    assert found.conversion.probes.holds


@pytest.fixture
def wrong_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    def shifted(*arguments: Any) -> onnx.ModelProto:
        model = fuse(*arguments)
        for tensor in model.graph.initializer:
            if tensor.name == "head/classes":
                values = numpy_helper.to_array(tensor)[:, ::-1]
                tensor.CopyFrom(numpy_helper.from_array(values.copy(), tensor.name))
        return model

    monkeypatch.setattr(export.targets.classifier, "fuse", shifted)


@pytest.mark.usefixtures("wrong_graph")
def test_f32_a_breach_is_refused_and_the_old_file_stays(
    clip: FrozenClip, constants: Constants, images: Images, tmp_path: Path
) -> None:
    path = tmp_path / "c.onnx"
    path.write_bytes(b"old")
    with pytest.raises(ParityError, match="same first class"):
        write_classifier(path, clip, constants, CLASSES, images, artefact_sha256="")
    assert path.read_bytes() == b"old"


@pytest.mark.usefixtures("wrong_graph")
def test_f32_a_forced_breach_is_recorded(
    clip: FrozenClip, constants: Constants, images: Images, tmp_path: Path
) -> None:
    path = tmp_path / "c.onnx"
    found = write_classifier(path, clip, constants, CLASSES, images, artefact_sha256="", force=True)
    assert found.conversion.forced
    recorded = json.loads(properties(path)["fedprompt.parity"])
    assert recorded["forced"] is True
    assert recorded["images"]["largest"] > 1e-3
    assert Classifier(path, provider="cpu").metadata.parity == recorded


def test_a_frozen_batch_is_noticed(
    clip: FrozenClip,
    constants: Constants,
    images: Images,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def frozen(*arguments: Any) -> onnx.ModelProto:
        model = fuse(*arguments)
        for tensor in model.graph.initializer:
            if tensor.name == "int_-1_48":
                tensor.CopyFrom(numpy_helper.from_array(np.array([1, 48]), tensor.name))
        return model

    monkeypatch.setattr(export.targets.classifier, "fuse", frozen)
    with pytest.raises(GraphError, match="batch"):
        write_classifier(tmp_path / "c.onnx", clip, constants, CLASSES, images, artefact_sha256="")


def test_names_and_vectors_must_match(
    clip: FrozenClip, constants: Constants, images: Images, tmp_path: Path
) -> None:
    with pytest.raises(GraphError, match="2 class names"):
        write_classifier(
            tmp_path / "c.onnx", clip, constants, ("a", "b"), images, artefact_sha256=""
        )


def test_a_checkpoint_s_local_path_stays_at_home(
    tmp_path: Path, clip: FrozenClip, constants: Constants, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clip, "pretrained", "/home/alice/secret/weights.pt")
    monkeypatch.setattr(clip, "name", "local-dir:/home/alice/secret/clip")
    none, path = np.zeros((0, 32, 32, 3), np.uint8), tmp_path / "c.onnx"
    write_classifier(path, clip, constants, CLASSES, none, artefact_sha256="")
    backbone = Classifier(path).metadata.backbone
    assert (backbone["name"], backbone["pretrained"]) == ("local-dir:clip", "weights.pt")
    assert b"alice" not in path.read_bytes()
