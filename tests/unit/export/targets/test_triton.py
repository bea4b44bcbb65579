from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as schema  # Triton's own

from export.runtime import Classifier
from export.targets.classifier import Exported
from export.targets.triton import TritonSettings, config_pbtxt, write_repository
from fedprompt.backbone.clip import FrozenClip
from fedprompt.errors import ConfigError, GraphError
from tests.classifier_file import write_classifier


def parse(text: str) -> Any:
    """Read a configuration as Triton does; an unknown field or value raises."""
    return text_format.Parse(text, schema.ModelConfig())


def test_the_repository_is_what_triton_reads(written: Exported, tmp_path: Path) -> None:
    folder = write_repository(tmp_path / "models" / "birds", written.path.read_bytes())[0].parents[
        1
    ]
    files = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert files == {f"models/birds/{p}" for p in ("config.pbtxt", "labels.txt", "1/model.onnx")}
    assert (folder / "1/model.onnx").read_bytes() == written.path.read_bytes()
    config = parse((folder / "config.pbtxt").read_text())
    assert (config.name, config.backend, config.max_batch_size) == ("birds", "onnxruntime", 32)
    assert config.HasField("dynamic_batching")
    assert [(g.kind, g.count) for g in config.instance_group] == [(0, 1)]  # KIND_AUTO
    assert not config.HasField("optimization")
    labels = (folder / "labels.txt").read_text(encoding="utf-8").splitlines()
    assert labels == list(Classifier(written.path).classes)


def test_the_configuration_fits_the_graph(written: Exported, tmp_path: Path) -> None:
    """What onnx reads from the file itself, with its batch taken off."""
    import onnx

    folder = write_repository(tmp_path / "m", written.path.read_bytes())[0].parents[1]
    graph = onnx.load(folder / "1" / "model.onnx").graph
    kinds = {onnx.TensorProto.UINT8: schema.TYPE_UINT8, onnx.TensorProto.FLOAT: schema.TYPE_FP32}

    def described(values: Any) -> list[tuple[str, int, list[int]]]:
        return [
            (
                v.name,
                kinds[v.type.tensor_type.elem_type],
                [d.dim_value for d in v.type.tensor_type.shape.dim][1:],
            )
            for v in values
        ]

    config = parse((folder / "config.pbtxt").read_text())
    assert [(i.name, i.data_type, list(i.dims)) for i in config.input] == described(graph.input)
    assert [(o.name, o.data_type, list(o.dims)) for o in config.output] == described(graph.output)
    assert config.input[0].format == schema.ModelInput.FORMAT_NHWC
    assert (folder / config.output[0].label_filename).is_file()


def test_settings_reach_the_configuration(written: Exported) -> None:
    metadata = replace(Classifier(written.path).metadata, flavour="portable")
    settings = TritonSettings(
        device="gpu", instances=2, max_batch=8, queue_microseconds=0, tensorrt=True
    )
    config = parse(config_pbtxt("m", metadata, "", settings))
    assert config.max_batch_size == 8
    group = config.instance_group[0]
    assert (group.kind, group.count) == (schema.ModelInstanceGroup.KIND_GPU, 2)
    [accelerator] = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert accelerator.name == "tensorrt"
    assert accelerator.parameters["precision_mode"] == "FP32"
    half = replace(metadata, parity={"precision": "fp16"})
    assert 'value: "FP16"' in config_pbtxt("m", half, "", settings)


def test_tensorrt_takes_portable_graphs_only(written: Exported, tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="export the portable one"):
        write_repository(tmp_path / "m", written.path.read_bytes(), TritonSettings(tensorrt=True))
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"device": "tpu"}, "device = 'tpu'"),
        ({"instances": 0}, "instances = 0; expected at least 1"),
        ({"max_batch": 0}, "max_batch = 0"),
        ({"queue_microseconds": -1}, "at least 0"),
        ({"tensorrt": True, "device": "cpu"}, "exclude each other"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        TritonSettings(**wrong)


@pytest.mark.parametrize("name", ["a b", "-x", 'a"b', "ö"])
def test_a_name_that_triton_does_not_take_is_refused(
    written: Exported, tmp_path: Path, name: str
) -> None:
    with pytest.raises(ConfigError, match="no name of a Triton model"):
        write_repository(tmp_path / name, written.path.read_bytes())[0].parents[1]


def test_a_class_of_two_lines_is_refused(clip: FrozenClip, constants: Any, tmp_path: Path) -> None:
    none = np.zeros((0, 32, 32, 3), np.uint8)
    names = ("a", "b\nc", "d", "e", "f")
    write_classifier(tmp_path / "c.onnx", clip, constants, names, none, artefact_sha256="")
    with pytest.raises(GraphError, match="has a line break"):
        write_repository(tmp_path / "m", (tmp_path / "c.onnx").read_bytes())
    assert not (tmp_path / "m").exists()
