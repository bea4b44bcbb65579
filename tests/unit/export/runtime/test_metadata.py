import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from export.parity.compare import Probes
from export.runtime.metadata import PREFIX, GraphMetadata
from fedprompt.data.preprocess import Preprocessing
from fedprompt.errors import GraphError

METADATA = GraphMetadata(
    classes=("cat", "dög", 'a "quoted", name'),
    preprocessing=Preprocessing(size=32),
    backbone={"name": "tiny", "pretrained": "", "sha256": "a" * 64},
    tokenizer_sha256="b" * 64,
    artefact_sha256="c" * 64,
    folded={"class_vectors": [3, 24]},
    flavour="ort",
    opset=20,
    logit_scale=100.0,
    logit_bias=0.0,
    version="0.1.0",
    parity={"largest": 1e-6},
)


def test_round_trip() -> None:
    properties = METADATA.to_properties()
    assert all(key.startswith(PREFIX) for key in properties)
    assert json.loads(properties[f"{PREFIX}classes"]) == list(METADATA.classes)
    assert GraphMetadata.from_properties(properties) == METADATA
    probes = Probes(seed=1, logits=np.ones((2, 3), np.float32))
    found = GraphMetadata.from_properties(replace(METADATA, probes=probes).to_properties()).probes
    assert found is not None
    np.testing.assert_array_equal(found.logits, probes.logits)


def test_other_properties_and_later_keys_are_left_alone() -> None:
    properties = METADATA.to_properties() | {"author": "x", f"{PREFIX}later": "1"}
    assert GraphMetadata.from_properties(properties) == METADATA


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("classes", "[]"),
        ("classes", "[1]"),
        ("classes", "{"),
        ("classes", "[" * 100_000),
        ("preprocessing", "{}"),
        ("preprocessing", '{"size":"x"}'),
        ("preprocessing", "3"),
        ("opset", '"20"'),
        ("probes", "{}"),
        ("probes", '{"seed":1e999,"shape":[1,1],"logits":"AAAAAA=="}'),
        ("classes", '["\\ud800","x"]'),
        ("backbone", "{}"),
        ("backbone", '{"name":["x"],"pretrained":"","sha256":""}'),
        ("logit_scale", "NaN"),
        ("parity", '{"images":5}'),
        ("parity", '{"images":{"images":1,"largest":"s"}}'),
        ("ladder", "{}"),
        ("ladder", "[1]"),
        ("white_level", "65536"),
        ("white_level", "-1"),
        ("white_level", "1.5"),
        ("format", "2"),
        ("format", "null"),
    ],
)
def test_damage_is_refused(key: str, text: str) -> None:
    with pytest.raises(GraphError):
        GraphMetadata.from_properties(METADATA.to_properties() | {PREFIX + key: text})


@pytest.mark.parametrize("key", sorted({*METADATA.to_properties()} - {f"{PREFIX}ladder"}))
def test_a_missing_key_is_refused(key: str) -> None:
    properties: dict[str, Any] = METADATA.to_properties()
    del properties[key]
    with pytest.raises(GraphError):
        GraphMetadata.from_properties(properties)


def test_a_file_of_another_program_is_explained() -> None:
    with pytest.raises(GraphError, match="fedprompt export"):
        GraphMetadata.from_properties({"producer": "other"})


def test_files_of_before_the_ladder_are_fp32() -> None:
    properties = METADATA.to_properties()
    del properties[f"{PREFIX}ladder"]
    found = GraphMetadata.from_properties(properties)
    assert (found.ladder, found.precision) == ((), "fp32")
    assert replace(METADATA, parity=None).precision == "fp32"


def test_the_white_level_is_kept() -> None:
    metadata = replace(METADATA, white_level=4095)
    assert GraphMetadata.from_properties(metadata.to_properties()) == metadata


def test_the_ladder_and_the_precision_are_kept() -> None:
    rungs = ({"step": "int8-dynamic", "speed": None},)
    metadata = replace(METADATA, parity={"precision": "int8"}, ladder=rungs)
    found = GraphMetadata.from_properties(metadata.to_properties())
    assert (found.ladder, found.precision) == (rungs, "int8")
