"""Write a model repository for NVIDIA's Triton Inference Server: ``NAME/{config.pbtxt, ...}``.

    NAME/config.pbtxt     what Triton must know: shapes, batching, instances
    NAME/labels.txt       class names, one a line, for Triton's classification extension
    NAME/1/model.onnx     the classifier file as it is

This package does not run there: clients send decoded, resized uint8 images. Sources:
model_config.proto (triton-inference-server/common) and the README of onnxruntime_backend.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from export.runtime.metadata import GraphMetadata
from export.runtime.session import Session, open_classifier
from fedprompt.errors import ConfigError, GraphError
from fedprompt.storage import write_atomic

VERSION = "1"  # the folder of the first version; Triton takes the highest
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_KINDS = {
    "tensor(float)": "TYPE_FP32",
    "tensor(float16)": "TYPE_FP16",
    "tensor(bfloat16)": "TYPE_BF16",
}
_MODES = {"fp16": "FP16", "int8": "INT8"}  # of TensorRT, by the file's own precision


@dataclass(frozen=True, kw_only=True)
class TritonSettings:
    """State how a server is to run the model.

    Attributes
    ----------
    device
        ``gpu``, ``cpu``, or ``auto``: a GPU where there is one.
    instances
        Copies of the model on each device, which run at the same time.
    max_batch
        Images that the server may put together.
    queue_microseconds
        How long a request may wait for others; 0 takes what is there.
    tensorrt
        Let TensorRT compile the graph; it needs ``portable`` operators.
    """

    device: Literal["auto", "gpu", "cpu"] = "auto"
    instances: int = 1
    max_batch: int = 32
    queue_microseconds: int = 500
    tensorrt: bool = False

    def __post_init__(self) -> None:
        if self.device not in ("auto", "gpu", "cpu"):
            raise ConfigError(f"device = {self.device!r}; expected auto, gpu or cpu")
        for name, least in (("instances", 1), ("max_batch", 1), ("queue_microseconds", 0)):
            if (value := getattr(self, name)) < least:
                raise ConfigError(f"{name} = {value}; expected at least {least}")
        if self.tensorrt and self.device == "cpu":
            raise ConfigError("tensorrt and device = 'cpu' exclude each other; give one of them")


def write_repository(
    folder: Path, data: bytes, settings: TritonSettings | None = None
) -> tuple[Path, str]:
    """Write ``folder`` as a model of a Triton repository; its last part is the model's name.

    Parameters
    ----------
    folder
        Of the model, in the repository's folder: ``repository/NAME``.
    data
        Of a classifier file.
    settings
        How it is to be run.

    Returns
    -------
    The path of the classifier, and a line that says what the folder is.

    Raises
    ------
    ConfigError
        Triton does not take the name.
    GraphError
        The file is no classifier, or cannot be run as asked.
    StorageError
        The folder cannot be written.
    """
    settings = settings or TritonSettings()
    name = folder.absolute().name
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} is no name of a Triton model; expected letters, digits, '_', '-' and '.'"
        )
    session, metadata = open_classifier(data, provider="cpu")
    labels = _labels(metadata)
    config = config_pbtxt(name, metadata, _outputs(session), settings)
    path = folder / VERSION / "model.onnx"
    write_atomic(path, data)
    write_atomic(folder / "labels.txt", labels.encode())
    write_atomic(folder / "config.pbtxt", config.encode())  # last: a server that polls waits for it
    return path, f"{folder}: a model of a Triton repository"


def config_pbtxt(name: str, metadata: GraphMetadata, outputs: str, settings: TritonSettings) -> str:
    """Return a model's configuration, in protobuf's text format, with these outputs.

    Raises
    ------
    GraphError
        TensorRT is asked for, and the graph holds operators of ONNX Runtime's own.
    """
    if settings.tensorrt and metadata.flavour != "portable":
        raise GraphError(
            f"the graph's operators are of the flavour {metadata.flavour!r}, which TensorRT cannot "
            "compile; export the portable one"
        )
    size = metadata.preprocessing.size
    return f"""\
name: {json.dumps(name)}
backend: "onnxruntime"
max_batch_size: {settings.max_batch}
input [
  {{ name: "images" data_type: TYPE_UINT8 format: FORMAT_NHWC dims: [ {size}, {size}, 3 ] }}
]
output [
{outputs}
]
dynamic_batching {{ max_queue_delay_microseconds: {settings.queue_microseconds} }}
instance_group [ {{ kind: KIND_{settings.device.upper()} count: {settings.instances} }} ]
{_tensorrt(metadata) if settings.tensorrt else ""}"""


def _tensorrt(metadata: GraphMetadata) -> str:
    """Return the section that lets TensorRT compile, as exactly as the file was compared."""
    precision = _MODES.get((metadata.parity or {}).get("precision", "fp32"), "FP32")
    return f"""\
optimization {{
  execution_accelerators {{
    gpu_execution_accelerator: [
      {{
        name: "tensorrt"
        parameters {{ key: "precision_mode" value: "{precision}" }}
        parameters {{ key: "trt_layer_norm_fp32_fallback" value: "1" }}
      }}
    ]
  }}
}}
"""


def _outputs(session: Session) -> str:
    """Return the graph's outputs without their batch; the logits have labels."""
    lines = []
    for node in session.get_outputs():
        labels = ' label_filename: "labels.txt"' if node.name == "logits" else ""
        dims = ", ".join(map(str, node.shape[1:]))
        kind = _KINDS[node.type]
        lines.append(
            f"  {{ name: {json.dumps(node.name)} data_type: {kind} dims: [ {dims} ]{labels} }}"
        )
    return ",\n".join(lines)


def _labels(metadata: GraphMetadata) -> str:
    broken = [name for name in metadata.classes if len(name.splitlines()) != 1]
    if broken:
        raise GraphError(
            f"class {broken[0]!r} is empty or has a line break; Triton's labels are one a line: "
            "rename it and export again"
        )
    return "".join(f"{name}\n" for name in metadata.classes)
