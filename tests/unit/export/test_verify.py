from pathlib import Path

import onnx
import pytest
from onnx import numpy_helper

from export.runtime import Classifier
from export.verify import verify
from fedprompt.errors import GraphError
from fedprompt.identity import sha256_bytes


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
