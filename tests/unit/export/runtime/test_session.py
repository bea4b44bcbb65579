from pathlib import Path

import pytest

from export.runtime.providers import CPU
from export.runtime.session import open_classifier, start
from fedprompt.errors import GraphError


def test_a_session_and_its_metadata(classifier_file: Path) -> None:
    session, metadata = open_classifier(classifier_file.read_bytes(), provider="cpu", threads=1)
    assert session.get_providers() == [CPU]
    assert len(metadata.classes) == 5


def test_bytes_that_are_no_graph_are_explained(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(GraphError, match="ONNX Runtime refuses"):
        start(b"no graph", [CPU])
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""  # one line of ours, none of the library's
