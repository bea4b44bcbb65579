import json
from dataclasses import replace
from typing import Any

import pytest

from export.runtime.open_vocabulary.manifest import Manifest, Version
from fedprompt.errors import GraphError

NAME = "versions/0123456789abcdef.safetensors"
FIRST = Version(
    number=1, parent=0, artefact_sha256="a", classes=("x", "y"), templates=("{}",), tensors=NAME
)
MANIFEST = Manifest(
    method="dip",
    fixed="",
    backbone={"sha256": "b"},
    tokenizer_sha256="c",
    preprocessing={"size": 32},
    files={NAME: "d"},
    versions=(FIRST, replace(FIRST, number=2, parent=1)),
    current=2,
    version="0.1.0",
)


def test_what_is_written_is_read() -> None:
    assert Manifest.parse(MANIFEST.to_json()) == MANIFEST
    assert MANIFEST.served.number == 2


def outside(values: dict[str, Any]) -> None:
    values["versions"][0]["tensors"] = "../../etc/passwd"
    values["files"]["../../etc/passwd"] = "d"


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values.pop("files"),
        lambda values: values.update(extra=1),
        lambda values: values.update(format=99),
        lambda values: values.update(current=3),
        lambda values: values.update(current="2"),
        lambda values: values["versions"][1].update(parent=2),
        lambda values: values["versions"].reverse(),
        lambda values: values["versions"][0].update(classes=[]),
        lambda values: values["versions"][0].update(classes=[1]),
        lambda values: values["files"].update({NAME: None}),
        lambda values: values["files"].pop(NAME),
        lambda values: values["files"].update({"/etc/passwd": "d"}),
        lambda values: values["files"].update({"versions/../../x.safetensors": "d"}),
        outside,
    ],
)
def test_a_damaged_manifest_is_refused(change: Any) -> None:
    values = json.loads(MANIFEST.to_json())
    change(values)
    with pytest.raises(GraphError, match="manifest cannot be read"):
        Manifest.parse(json.dumps(values).encode())


@pytest.mark.parametrize("data", [b"", b"[", b"[]", b"3", b"[" * 100_000])
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(GraphError, match="export the bundle again"):
        Manifest.parse(data)
