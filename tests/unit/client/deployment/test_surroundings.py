import socket
import tomllib
from pathlib import Path

import pytest

from client.deployment import surroundings
from client.deployment.site_folder import SiteFolder
from fedprompt.errors import ConfigError
from fedprompt.files.file_lock import is_locked
from tests.enrolled import bundle, site


@pytest.fixture
def folder(tmp_path: Path) -> SiteFolder:
    return site(tmp_path / 'a "site"', tmp_path, bundle(("cat", "dog")))


def test_what_the_processes_read_is_private_and_says_where_the_folder_is(
    folder: SiteFolder,
) -> None:
    surroundings.prepare(folder)
    first = folder.secret.read_bytes()
    surroundings.prepare(folder)
    assert len(first) == 32
    assert folder.secret.read_bytes() != first
    assert folder.secret.stat().st_mode & 0o777 == 0o600
    where = tomllib.loads(folder.node_config.read_text(encoding="utf-8"))
    assert where == {"site-folder": str(folder.path.resolve())}


def test_nothing_is_told_to_flower_and_nothing_installed(folder: SiteFolder) -> None:
    env = surroundings.environment(folder, folder.node())
    assert env["FLWR_TELEMETRY_ENABLED"] == "0"
    assert env["FLWR_DISABLE_UPDATE_CHECK"] == "1"
    assert env["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"
    assert env["FLWR_HOME"] == str(folder.flower.resolve())


def test_two_clients_in_one_folder_are_one_too_many(folder: SiteFolder) -> None:
    assert not is_locked(folder.lock)
    with surroundings.alone(folder):
        assert is_locked(folder.lock)
        with pytest.raises(ConfigError, match=r"runs in .* already"), surroundings.alone(folder):
            pass
    assert not is_locked(folder.lock)


def test_a_port_is_free_until_somebody_listens_there() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        assert surroundings.answers(port)
        assert not surroundings.is_free(port)
    assert not surroundings.answers(port)
    assert surroundings.is_free(port)
    assert not surroundings.answers(0)
    assert not surroundings.is_free(0)
