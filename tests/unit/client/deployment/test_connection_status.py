import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from client.deployment import connection_status
from client.deployment.connection_status import Contact, Diary
from fedprompt.errors import StorageError


def test_a_diary_writes_seldom_and_survives_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[bytes] = []
    monkeypatch.setattr(connection_status, "write_atomic", lambda _, data: written.append(data))
    path = tmp_path / "contact.json"
    diary = Diary(path)
    for _ in range(50):
        diary.heard()
    assert len(written) == 1
    diary.trouble("away")
    assert json.loads(written[-1])["trouble"] == "away"
    path.write_text("{")
    assert connection_status.read(path) == Contact()


def test_what_went_before_is_kept_beside_the_news(tmp_path: Path) -> None:
    path = tmp_path / "contact.json"
    Diary(path).refused()
    refused = connection_status.read(path).refused
    Diary(path).heard()  # of a process that was started again
    found = connection_status.read(path)
    assert (found.refused, found.trouble) == (refused, "")
    for moment in (found.refused, found.heard):
        assert abs(datetime.now(UTC) - datetime.fromisoformat(moment)) < timedelta(hours=1)
    Diary(path).trouble("ConnectError: away")
    assert connection_status.read(path) == Contact(found.heard, refused, "ConnectError: away")


def test_a_full_disk_stops_no_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise StorageError("no space left on device")

    monkeypatch.setattr(connection_status, "write_atomic", full)
    Diary(tmp_path / "contact.json").heard()
    assert connection_status.read(tmp_path / "contact.json") == Contact()


@pytest.mark.parametrize("text", ["", "[]", '{"unknown": 1}', "null"])
def test_a_damaged_file_tells_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "contact.json").write_text(text)
    assert connection_status.read(tmp_path / "contact.json") == Contact()
