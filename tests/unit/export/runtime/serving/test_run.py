"""The service in a process of its own."""

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import export.runtime.serving.run
from export.runtime import Classifier
from export.runtime.serving.limits import Limits
from export.runtime.serving.run import listening, run
from export.runtime.serving.service import Service
from fedprompt.errors import FedpromptError
from tests.ipv6 import has_ipv6

from .conftest import encoded

ROOT = Path(__file__).parents[4]
TOLD = "serving on "


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as door:
        return int(door.getsockname()[1])


class Serving:
    """Hold a process that serves, and the lines it has logged."""

    def __init__(self, model: Path) -> None:
        self.port = free_port()
        command = "from fedprompt.cli import main; main()"
        arguments = ("serve", model, "--address", f"127.0.0.1:{self.port}", "--threads", "1")
        self.process = subprocess.Popen(
            [sys.executable, "-c", command, *map(str, arguments)],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr
        self.lines = [self.process.stderr.readline()]
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stderr
        self.lines += list(self.process.stderr)

    def ended(self) -> int:
        code = self.process.wait(180)
        self.reader.join(60)
        return code

    def logged(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]


@pytest.fixture
def serving(classifier_file: Path) -> Iterator[Serving]:
    served = Serving(classifier_file)
    yield served
    served.process.kill()
    served.process.wait()
    assert served.process.stderr
    served.reader.join()
    served.process.stderr.close()


def metric(port: int, name: str) -> float:
    lines = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


def test_sigterm_lets_what_is_in_work_end_and_takes_no_more(serving: Serving) -> None:
    assert serving.logged()[0]["message"] == f"{TOLD}http://127.0.0.1:{serving.port}"
    image = encoded()
    head = (
        "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
        f"Content-Length: {len(image)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", serving.port), 30) as caller:
        caller.sendall(head.encode() + image[:20])
        while metric(serving.port, "fedprompt_serve_bodies_arriving") < 1:
            pass
        serving.process.send_signal(signal.SIGTERM)
        while not refused(serving.port):
            pass
        caller.sendall(image[20:])
        answer = b"".join(iter(lambda: caller.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert len(json.loads(answer.partition(b"\r\n\r\n")[2])["results"][0]["predictions"]) == 5
    assert serving.ended() == 0
    events = [line.get("event") for line in serving.logged()]
    assert events == ["serving", "request", "stopped"]
    assert serving.logged()[1]["status"] == 200


def refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except ConnectionError:
        return True
    return False


def test_an_idle_connection_does_not_hold_the_end_up(serving: Serving) -> None:
    with socket.create_connection(("127.0.0.1", serving.port), 30) as caller:
        caller.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert caller.recv(65536).startswith(b"HTTP/1.1 200 ")
        serving.process.send_signal(signal.SIGINT)
        assert serving.ended() == 0


@pytest.mark.parametrize(("host", "url"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")])
def test_a_signal_before_the_server_listens_is_not_lost(
    classifier: Classifier, monkeypatch: pytest.MonkeyPatch, host: str, url: str
) -> None:
    """It says that it serves just before; whoever reads that may stop it at once."""
    told: list[str] = []

    if host == "::1" and not has_ipv6():
        pytest.skip("this machine has no IPv6 loopback address")

    def info(message: str, *values: object, **_: object) -> None:
        if not told:
            signal.raise_signal(signal.SIGTERM)
        told.append(message % values)

    monkeypatch.setattr(export.runtime.serving.run._log, "info", info)
    late = threading.Timer(20, signal.raise_signal, (signal.SIGINT,))  # instead of for ever
    late.start()
    before = signal.getsignal(signal.SIGTERM)
    port = free_port()
    run(Service(classifier, Limits()), host, port)
    assert late.is_alive()
    late.cancel()
    assert told == [f"{TOLD}http://{url}:{port}", "stopped"]
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_port_that_is_taken_is_named() -> None:
    with (
        listening("127.0.0.1", 0) as [door],
        pytest.raises(FedpromptError, match="give another --address"),
        listening("127.0.0.1", door.getsockname()[1]),
    ):
        pass
