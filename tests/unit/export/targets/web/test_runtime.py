from pathlib import Path

import pytest

from export.targets.web import runtime
from export.targets.web.runtime import runtime_files
from fedprompt import npm
from fedprompt.errors import DataError
from fedprompt.identity import sha256_bytes
from tests.npm_registry import publish_files

CONTENTS = {"dist/a.mjs": b"module", "dist/a.wasm": b"\0asm", "README.md": b"read"}
PINNED = {"a.js": "dist/a.mjs", "a.wasm": "dist/a.wasm"}


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "registry"
    package = publish_files(root, "thing", "1.0.0", CONTENTS)
    pinned = {name: (file, sha256_bytes(CONTENTS[file])) for name, file in PINNED.items()}
    monkeypatch.setattr(runtime, "PACKAGE", package)
    monkeypatch.setattr(runtime, "FILES", pinned)
    monkeypatch.setattr(npm, "REGISTRY", root.as_uri())
    monkeypatch.setenv("FEDPROMPT_CACHE", str(tmp_path / "cache"))
    return root


WANTED = {name: CONTENTS[file] for name, file in PINNED.items()}


def test_what_was_fetched_once_is_kept(registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert runtime_files() == WANTED
    monkeypatch.setattr(npm, "REGISTRY", (registry / "gone").as_uri())
    assert runtime_files() == WANTED


@pytest.mark.parametrize("deed", ["damage", "remove"])
def test_what_is_damaged_or_missing_is_fetched_again(
    registry: Path, tmp_path: Path, deed: str
) -> None:
    runtime_files()
    kept = tmp_path / "cache" / "thing-1.0.0" / "a.wasm"
    if deed == "damage":
        kept.write_bytes(b"other")
    else:
        kept.unlink()
    assert runtime_files() == WANTED
    assert kept.read_bytes() == CONTENTS["dist/a.wasm"]


def test_without_a_registry_the_error_says_what_to_do(
    registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(npm, "REGISTRY", (registry / "gone").as_uri())
    folder = tmp_path / "cache" / "thing-1.0.0"
    with pytest.raises(DataError, match=f"or copy {folder} from a machine that has it"):
        runtime_files()
    assert not folder.exists()


def test_a_package_with_other_files_is_refused(
    registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(runtime.FILES, "a.js", ("dist/a.mjs", "0" * 64))
    with pytest.raises(DataError, match=r"thing 1\.0\.0 does not hold the files"):
        runtime_files()
    monkeypatch.setitem(runtime.FILES, "a.js", ("dist/none.mjs", "0" * 64))
    with pytest.raises(DataError, match=r"thing 1\.0\.0 does not hold the files"):
        runtime_files()
    assert not (tmp_path / "cache").exists()
