import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from client.deployment import connection_status
from client.deployment.connection_status import ConnectionStatus, StatusFile
from fedprompt.errors import StorageError


def test_a_diary_writes_seldom_and_survives_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[bytes] = []
    monkeypatch.setattr(connection_status, "write_atomic", lambda _, data: written.append(data))
    path = tmp_path / "contact.json"
    diary = StatusFile(path)
    for _ in range(50):
        diary.record_answer()
    assert len(written) == 1
    diary.record_failure("away")
    assert json.loads(written[-1])["trouble"] == "away"
    path.write_text("{")
    assert connection_status.read(path) == ConnectionStatus()


def test_what_went_before_is_kept_beside_the_news(tmp_path: Path) -> None:
    path = tmp_path / "contact.json"
    StatusFile(path).record_refusal()
    refused = connection_status.read(path).refused
    StatusFile(path).record_answer()  # of a process that was started again
    found = connection_status.read(path)
    assert (found.refused, found.trouble) == (refused, "")
    for moment in (found.refused, found.heard):
        assert abs(datetime.now(UTC) - datetime.fromisoformat(moment)) < timedelta(hours=1)
    StatusFile(path).record_failure("ConnectError: away")
    assert connection_status.read(path) == ConnectionStatus(
        found.heard, refused, "ConnectError: away"
    )


def test_a_full_disk_stops_no_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise StorageError("no space left on device")

    monkeypatch.setattr(connection_status, "write_atomic", full)
    StatusFile(tmp_path / "contact.json").record_answer()
    assert connection_status.read(tmp_path / "contact.json") == ConnectionStatus()


@pytest.mark.parametrize("text", ["", "[]", '{"unknown": 1}', "null"])
def test_a_damaged_file_tells_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "contact.json").write_text(text)
    assert connection_status.read(tmp_path / "contact.json") == ConnectionStatus()
