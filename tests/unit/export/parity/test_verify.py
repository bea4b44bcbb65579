import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import numpy_helper

from export.fold.constants import Constants
from export.parity.compare import require_finite
from export.parity.verify import require_vectors, verify, verify_exported
from export.precision import Recipe, Rewrite
from export.runtime import Classifier
from export.runtime.open_vocabulary.swap import swap
from fedprompt.backbone.clip import FrozenClip
from fedprompt.errors import GraphError, ParityError
from fedprompt.identity import sha256_bytes
from tests.classifier_file import write_classifier
from tests.prompts import tuned

Images = npt.NDArray[np.uint8]


def changed(path: Path, target: Path, **properties: str) -> Path:
    model = onnx.load(path)
    for entry in model.metadata_props:
        entry.value = properties.get(entry.key.removeprefix("fedprompt."), entry.value)
    target.write_bytes(model.SerializeToString())
    return target


def test_a_file_repeats_its_own_test(classifier_file: Path) -> None:
    parity = verify(Classifier(classifier_file))
    assert parity.holds
    assert parity.images == 8


def test_a_changed_weight_is_noticed(classifier_file: Path, tmp_path: Path) -> None:
    model = onnx.load(classifier_file)
    for tensor in model.graph.initializer:
        if tensor.name == "block_0/mlp/down/weight":
            values = numpy_helper.to_array(tensor).copy()
            values[0, ::2] += 0.5  # not the whole row: LayerNorm would take that out
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    path = tmp_path / "changed.onnx"
    path.write_bytes(model.SerializeToString())
    assert not verify(Classifier(path)).holds


def test_changed_probes_are_noticed(classifier_file: Path, tmp_path: Path) -> None:
    probes = Classifier(classifier_file).metadata.probes
    assert probes is not None
    text = str(probes.to_dict() | {"seed": 5}).replace("'", '"')
    assert not verify(Classifier(changed(classifier_file, tmp_path / "c.onnx", probes=text))).holds


def test_a_file_without_probes_is_explained(classifier_file: Path, tmp_path: Path) -> None:
    path = changed(classifier_file, tmp_path / "c.onnx", probes="null")
    with pytest.raises(GraphError, match="no probes"):
        verify(Classifier(path))


def test_another_number_of_classes_is_refused(classifier_file: Path, tmp_path: Path) -> None:
    names = '["a","b"]'
    path = changed(
        classifier_file,
        tmp_path / "c.onnx",
        classes=names,
        classes_sha256=f'"{sha256_bytes(names.encode())}"',
    )
    with pytest.raises(GraphError, match="2 classes"):
        Classifier(path)


def test_a_file_of_another_input_size_is_refused(classifier_file: Path, tmp_path: Path) -> None:
    pre = Classifier(classifier_file).metadata.preprocessing.to_dict() | {"size": 48}
    text = str(pre).replace("'", '"')
    path = changed(classifier_file, tmp_path / "c.onnx", preprocessing=text)
    with pytest.raises(GraphError, match="expected images, uint8"):
        Classifier(path)


@pytest.mark.parametrize("rewrite", ["fp16", "int8-dynamic", "int8-static"])
def test_short_numbers_are_verified_by_their_own_bounds(
    rewrite: Rewrite, clip: FrozenClip, constants: Constants, images: Images, tmp_path: Path
) -> None:
    path, names = tmp_path / "c.onnx", tuple("abcde")
    write_classifier(
        path, clip, constants, names, images, artefact_sha256="",
        recipe=Recipe("ort", rewrite), calibration=images, force=True,
    )  # fmt: skip
    classifier = Classifier(path)
    parity = verify(classifier)
    assert parity.holds
    assert parity.largest > 1e-3  # else fp32's bound would do
    assert classifier.metadata.precision == rewrite.partition("-")[0]
    recorded = json.dumps(classifier.metadata.parity).replace(classifier.metadata.precision, "fp32")
    assert not verify(Classifier(changed(path, tmp_path / "fp32.onnx", parity=recorded))).holds
    recorded = json.dumps({"precision": "int4"})
    with pytest.raises(GraphError, match="int4"):
        verify(Classifier(changed(path, tmp_path / "int4.onnx", parity=recorded)))


def test_no_answer_to_an_extreme_image_is_refused() -> None:
    require_finite(np.zeros((3, 2), np.float32))
    with pytest.raises(ParityError, match="overflows"):
        require_finite(np.array([[0.0, np.nan]], np.float32))


def test_what_was_exported_is_measured_after_a_swap_too(bundle: Path, clip: FrozenClip) -> None:
    swap(bundle, tuned(clip, seed=1))
    verified = verify_exported(bundle, "cpu")
    assert verified.parity.holds
    assert verified.parity.images == 8
    assert verified.vector_difference is not None
    require_vectors(verified.vector_difference)
    assert len(verified.classifier.classes) == 3


def test_class_vectors_that_differ_are_refused() -> None:
    for difference in (1e-4, np.nan):
        with pytest.raises(ParityError, match="class vectors"):
            require_vectors(difference)


def test_any_changed_file_is_noticed(bundle: Path) -> None:
    (bundle / "tokenizer.json").write_bytes(b"{}")
    with pytest.raises(GraphError, match="was changed"):
        verify_exported(bundle)
