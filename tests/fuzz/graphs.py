"""ONNX files: the structure check, ONNX Runtime on the bytes, and the metadata inside."""

import json

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.parity.compare import Probes
from export.runtime.metadata import PREFIX, GraphMetadata
from export.runtime.providers import CPU
from export.runtime.session import read_metadata, start
from fedprompt.data.preprocess import Preprocessing

CAP = 1 << 16
_SIZE = 2  # pixels: a graph as small as one can be


def feed(data: bytes) -> None:
    """Open a file as `fedprompt verify` does, and ask a graph that opens for two images."""
    session = start(data, [CPU], threads=1)
    read_metadata(session)
    session.require({"images": (2, _SIZE, _SIZE, 3)})


def feed_metadata(data: bytes) -> None:
    """Read metadata properties: a JSON object of texts, hashes made to fit where asked."""
    try:
        found = json.loads(data[1:])
        properties = {PREFIX + str(k): json.dumps(v) for k, v in found.items()}
        if data[0] % 2:
            names = found["classes"]
            properties[PREFIX + "classes_sha256"] = json.dumps(_hash(names))
    except (ValueError, AttributeError, IndexError, RecursionError, KeyError, TypeError):
        text = data[1:].decode("utf-8", "replace")
        properties = dict(_properties()) | {PREFIX + "format": "1", PREFIX + "probes": text}
    GraphMetadata.from_properties(properties)


def seeds() -> list[bytes]:
    """Return two tiny classifiers, one with external data, and one with an unknown operator."""
    plain, soft = _classifier(), _classifier()
    soft.graph.node[-1].output[0] = "m"
    soft.graph.node.append(helper.make_node("Softmax", ["m"], ["logits"], axis=-1))
    outside = _classifier()
    outside.graph.initializer[0].data_location = TensorProto.EXTERNAL
    outside.graph.initializer[0].external_data.add(key="location", value="../secret")
    odd = _classifier()
    odd.graph.node[0].domain = "com.microsoft"
    return [model.SerializeToString() for model in (plain, soft, outside, odd)]


def metadata_seeds() -> list[bytes]:
    """Return the metadata of a classifier, whole and piece by piece."""
    values = {k.removeprefix(PREFIX): json.loads(v) for k, v in _properties().items()}
    whole = json.dumps(values).encode()
    return [b"\0" + whole, b"\1" + whole, b'\0{"seed": 0, "shape": [1, 2], "logits": "AAAAAA=="}']


def _hash(names: object) -> str:
    from fedprompt.identity import canonical_json, sha256_bytes

    return sha256_bytes(canonical_json(names))


def _properties() -> dict[str, str]:
    return GraphMetadata(
        classes=("cat", "dog"),
        preprocessing=Preprocessing(size=_SIZE),
        backbone={"name": "tiny", "pretrained": "", "sha256": "0" * 64},
        tokenizer_sha256="0" * 64,
        artefact_sha256="0" * 64,
        folded={"class_vectors": [2, 4]},
        flavour="ort",
        opset=20,
        logit_scale=1.0,
        logit_bias=0.0,
        version="0.1.0",
        parity={"forced": False},
        probes=Probes(seed=0, logits=np.zeros((1, 2), np.float32)),
    ).to_properties()


def _classifier() -> onnx.ModelProto:
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", _SIZE, _SIZE, 3])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])
    weights = numpy_helper.from_array(np.ones((_SIZE * _SIZE * 3, 2), np.float32), "w")
    shape = numpy_helper.from_array(np.array([-1, _SIZE * _SIZE * 3]), "s")
    nodes = [
        helper.make_node("Cast", ["images"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["f", "s"], ["r"]),
        helper.make_node("MatMul", ["r", "w"], ["logits"]),
    ]
    graph = helper.make_graph(nodes, "g", [images], [logits], [weights, shape])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, _properties())
    return model
