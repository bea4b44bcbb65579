import logging
import os
import signal
import socket
import sys
import threading
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from client.deployment import supervisor as module
from client.deployment.connection_status import REFUSED
from client.deployment.site_folder import SiteFolder
from client.deployment.supervisor import Supervisor
from fedprompt.errors import ConfigError, RefusedError
from fedprompt.files.file_lock import is_locked
from fedprompt.processes.child import SETTLED, Ended
from fedprompt.protocol.address import free_port, is_answering
from tests.enrolled import invitation, site
from tests.waiting import until


@pytest.fixture
def folder(tmp_path: Path) -> SiteFolder:
    return site(tmp_path / 'a "site"', tmp_path, invitation(("cat", "dog")))


def patience(folder: SiteFolder, seconds: float) -> None:
    text = folder.toml.read_text().replace("# patience = 86400", f"patience = {seconds}")
    folder.toml.write_text(text)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_F15_a_refused_site_asks_ever_more_seldom_and_then_gives_up(
    folder: SiteFolder, clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    patience(folder, 3600.0)
    made, pauses = Supervisor(folder), list[float]()
    made.node.postpone = pauses.append

    def refuse() -> None:
        for _ in range(100):
            made._node_ended(Ended(REFUSED, 0.5))
            clock[0] += pauses[-1]

    with caplog.at_level(logging.ERROR), pytest.raises(RefusedError, match="refuses this site"):
        refuse()
    assert pauses[0] >= 15
    assert max(pauses) > 400
    assert len(pauses) < 16  # an hour
    assert "revoked, or this machine's clock" in caplog.text
    assert RefusedError.exit_code == 16


def test_a_site_that_was_taken_in_between_starts_anew(
    folder: SiteFolder, clock: list[float]
) -> None:
    patience(folder, 100.0)
    made, pauses = Supervisor(folder), list[float]()
    made.node.postpone = pauses.append
    for _ in range(3):
        made._node_ended(Ended(REFUSED, 0.5))
    clock[0] += 1000.0
    made._node_ended(Ended(REFUSED, SETTLED + 1))  # it ran: the server knew it
    assert pauses[-1] <= 30
    made._node_ended(Ended(1, 0.5))
    clock[0] += 1000.0
    made._node_ended(Ended(REFUSED, 0.5))


def test_no_patience_gives_up_at_once(folder: SiteFolder, clock: list[float]) -> None:
    patience(folder, 0.0)
    with pytest.raises(RefusedError):
        Supervisor(folder)._node_ended(Ended(REFUSED, 0.5))


def fake(code: str) -> Callable[[], list[str]]:
    return lambda: [sys.executable, "-c", code]


LISTEN = """
import socket, time
server = socket.create_server(("127.0.0.1", {port}))
time.sleep(600)
"""


def test_F34_both_run_until_told_to_stop_and_none_is_left(
    folder: SiteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that dies comes back; the worker waits until the SuperNode is ready for it."""
    made, stopped = Supervisor(folder), threading.Event()
    made._port = free_port()
    monkeypatch.setattr(made.node, "_command", fake(LISTEN.format(port=made._port)))
    monkeypatch.setattr(made.worker, "_command", fake("import time; time.sleep(600)"))
    thread = threading.Thread(target=made.run, args=(stopped,))
    thread.start()
    try:
        first = until(lambda: made.worker.pid)
        assert made.node.pid
        assert is_answering(made._port)
        os.kill(made.worker.pid, signal.SIGKILL)
        until(lambda: made.worker.pid not in (None, first))
    finally:
        stopped.set()
        thread.join()
    assert (made.node.pid, made.worker.pid) == (None, None)
    assert not is_answering(made._port)


def test_a_port_that_was_taken_is_changed(folder: SiteFolder) -> None:
    made = Supervisor(folder)
    first = int(made._node_command()[-1])
    assert int(made._node_command()[-1]) == first
    with socket.create_server(("127.0.0.1", first)):
        assert int(made._node_command()[-1]) != first
    assert made._worker_command()[-3] == f"127.0.0.1:{made._port}"
    assert made._worker_command()[-1] == "3600"


def test_what_the_processes_read_is_private_and_says_where_the_folder_is(
    folder: SiteFolder,
) -> None:
    module.write_runtime_files(folder)
    first = folder.secret.read_bytes()
    module.write_runtime_files(folder)
    assert len(first) == 32
    assert folder.secret.read_bytes() != first
    assert folder.secret.stat().st_mode & 0o777 == 0o600
    where = tomllib.loads(folder.node_config.read_text(encoding="utf-8"))
    assert where == {"site-folder": str(folder.path.resolve())}


def test_nothing_is_told_to_flower_and_nothing_installed(folder: SiteFolder) -> None:
    env = module.environment(folder, folder.node())
    assert env["FLWR_TELEMETRY_ENABLED"] == "0"
    assert env["FLWR_DISABLE_UPDATE_CHECK"] == "1"
    assert env["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"
    assert env["FLWR_HOME"] == str(folder.flower.resolve())


def test_two_clients_in_one_folder_are_one_too_many(folder: SiteFolder) -> None:
    assert not is_locked(folder.lock)
    with module.single_instance(folder):
        assert is_locked(folder.lock)
        with (
            pytest.raises(ConfigError, match=r"runs in .* already"),
            module.single_instance(folder),
        ):
            pass
    assert not is_locked(folder.lock)
