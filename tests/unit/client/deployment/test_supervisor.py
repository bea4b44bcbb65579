import logging
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from client.deployment import supervisor as module
from client.deployment import surroundings
from client.deployment.connection_status import REFUSED
from client.deployment.site_folder import SiteFolder
from client.deployment.supervisor import Supervisor
from fedprompt.errors import RefusedError
from fedprompt.processes.child import SETTLED, Ended
from tests.enrolled import bundle, site
from tests.waiting import until


@pytest.fixture
def folder(tmp_path: Path) -> SiteFolder:
    return site(tmp_path / "north", tmp_path, bundle(("cat", "dog")))


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
    made.node.wait = pauses.append

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
    made.node.wait = pauses.append
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
    made._port = surroundings.free_port()
    monkeypatch.setattr(made.node, "_command", fake(LISTEN.format(port=made._port)))
    monkeypatch.setattr(made.worker, "_command", fake("import time; time.sleep(600)"))
    thread = threading.Thread(target=made.run, args=(stopped,))
    thread.start()
    try:
        first = until(lambda: made.worker.pid)
        assert made.node.pid
        assert surroundings.answers(made._port)
        made.worker._process.kill()
        until(lambda: made.worker.pid not in (None, first))
    finally:
        stopped.set()
        thread.join()
    assert (made.node.pid, made.worker.pid) == (None, None)
    assert not surroundings.answers(made._port)


def test_a_port_that_was_taken_is_changed(folder: SiteFolder) -> None:
    made = Supervisor(folder)
    first = int(made._node_command()[-1])
    assert int(made._node_command()[-1]) == first
    with socket.create_server(("127.0.0.1", first)):
        assert int(made._node_command()[-1]) != first
    assert made._worker_command()[-3] == f"127.0.0.1:{made._port}"
    assert made._worker_command()[-1] == "3600"
