"""Where the output of a SuperLink goes; real ones are started in tests/faults."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from server.deployment import superlink_process
from server.deployment.superlink_process import FLOWER_LOG, SuperLinkProcess
from tests.paperwork import deployment

RECORDS = [
    {"level": "warning", "logger": "fedprompt.audit", "message": "refused"},
    {"level": "info", "logger": "flwr", "message": "routine"},
    {"level": "warning", "logger": "flwr", "message": "odd"},
]


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, *, stopping: bool) -> str:
    """Run a process in the SuperLink's place until its output ends; return Flower's log."""
    lines = ["INFO: SuperLink", *map(json.dumps, RECORDS)]
    code = f"import sys; sys.stdin.read(1); print({chr(10).join(lines)!r})"
    monkeypatch.setattr(SuperLinkProcess, "_await_answer", lambda *_: None)
    real = superlink_process.Child

    def child(_: object, *arguments: object, stdin: int) -> object:
        return real([sys.executable, "-c", code], *arguments, stdin=stdin)

    monkeypatch.setattr(superlink_process, "Child", child)
    made = deployment(folder)
    superlink = SuperLinkProcess(made, made.config(), subprocess.PIPE)
    if stopping:
        superlink.expect_end()
    superlink._child.close(20)
    assert superlink.exit_code in (0, None)
    superlink.end()
    return (made.logs / FLOWER_LOG).read_text()


def test_our_records_go_to_our_log_and_flowers_routine_to_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    flower = run(tmp_path / "d", monkeypatch, stopping=False)
    assert [(record.name, record.getMessage()) for record in caplog.records] == [
        ("fedprompt.audit", "refused"), ("flwr", "odd"),
    ]  # fmt: skip
    assert flower.splitlines() == ["INFO: SuperLink", "routine"]


def test_complaints_of_a_superlink_that_is_being_stopped_are_routine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    flower = run(tmp_path / "d", monkeypatch, stopping=True)
    assert [record.name for record in caplog.records] == ["fedprompt.audit"]
    assert "odd" in flower
