import subprocess
import sys
from pathlib import Path

import pytest

from fedprompt.files.file_lock import is_locked, lock


@pytest.fixture(params=["file", "folder"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path if request.param == "folder" else tmp_path / "client.lock"


def test_a_lock_keeps_others_out_until_it_is_released(path: Path) -> None:
    assert not is_locked(path)
    with lock(path):
        assert is_locked(path)
        with pytest.raises(TimeoutError, match="locked by another process"), lock(path, timeout=0):
            pass
        with pytest.raises(TimeoutError), lock(path, timeout=0.1):
            pass
    assert not is_locked(path)
    with lock(path, timeout=0):
        pass


def test_a_new_lock_file_is_private(tmp_path: Path) -> None:
    with lock(tmp_path / "lock"):
        assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o600


def test_a_killed_process_releases_its_lock(path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from fedprompt.files.file_lock import lock\n"
        "with lock(Path(sys.argv[1])): print('held', flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        assert is_locked(path)
        process.kill()
    assert not is_locked(path)


def test_a_client_of_an_earlier_version_holds_the_same_lock(tmp_path: Path) -> None:
    filelock = pytest.importorskip("filelock")
    with filelock.FileLock(tmp_path / "client.lock"):
        assert is_locked(tmp_path / "client.lock")
    with lock(tmp_path / "client.lock"), pytest.raises(filelock.Timeout):
        filelock.FileLock(tmp_path / "client.lock").acquire(timeout=0)
