from pathlib import Path

import pytest

from fedprompt.data.cache import cache_folder


def test_the_environment_chooses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FEDPROMPT_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("FEDPROMPT_CACHE", "~/kept")
    assert cache_folder() == tmp_path / "kept"
    monkeypatch.setenv("FEDPROMPT_CACHE", "")
    assert cache_folder() == tmp_path / ".cache" / "fedprompt"
