import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.proto.runtime_pb2 import SendTaskHeartbeatResponse
from flwr.supercore.constant import TaskType
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError
from flwr.supercore.superexec.executor.types import ExecutionSpec, LaunchResultStatus

from client.deployment import worker as module
from client.deployment.egress_log import EgressLog
from client.deployment.site_folder import SiteFolder
from client.deployment.worker import answer, reply_to
from fedprompt.errors import StorageError
from fedprompt.settings.run_config import defaults
from tests.enrolled import invitation, message, site

SECRET = "ward-7-smith"


@pytest.fixture
def folder(tmp_path: Path) -> SiteFolder:
    return site(tmp_path / "north", tmp_path, invitation(("cat", "dog")))


def asked() -> Message:
    content = RecordDict({"config": ConfigRecord({"run": "abc", "round": 1, "sites": 5})})
    return message("train", content)


def context(folder: SiteFolder) -> Context:
    return Context(1, 7, {"site-folder": str(folder.path)}, RecordDict(), defaults())


def broken() -> ClientApp:
    raise ImportError(f"/photos/{SECRET}/torch.so is damaged")


def test_an_app_that_cannot_be_loaded_is_told_by_its_kind_and_logged(folder: SiteFolder) -> None:
    reply, details = reply_to(asked(), context(folder), broken)
    assert reply.error.reason == "ImportError; see the site's own log"
    assert details == reply.error.reason
    (line,) = EgressLog(folder.egress).verify()[0]
    assert line.entry["error"] == reply.error.reason


def test_an_unknown_kind_of_message_is_refused_and_logged(folder: SiteFolder) -> None:
    from client.app import app

    reply, _ = reply_to(message("query.everything", RecordDict()), context(folder), lambda: app)
    assert reply.error.reason.endswith("see the site's own log")
    (line,) = EgressLog(folder.egress).verify()[0]
    assert line.entry["kind"] == "query.everything"


class Client:
    """Stand in for the SuperNode."""

    def close(self) -> None: ...


class Quiet:
    def __init__(self, _: object) -> None: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...


SPEC = ExecutionSpec(
    task_type=TaskType.CLIENT_APP,
    runtime_api_address="127.0.0.1:1",
    token="t",
    insecure=True,
    root_certificates_path=None,
    runtime_dependency_install=False,
    parent_pid=None,
    suppress_output=False,
    task_id=1,
)


def test_what_cannot_be_logged_is_not_pushed(
    folder: SiteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task is not over for Flower, which then tells that the app stopped, and no more."""
    pushed: list[Message] = []
    ended: list[object] = []

    def full(*_: object) -> None:
        raise StorageError(f"{SECRET}: no space")

    monkeypatch.setattr("client.deployment.egress_log.EgressLog.append", full)
    monkeypatch.setattr(module.RuntimeHttpClient, "from_server_address", lambda **_: Client())
    monkeypatch.setattr(module, "HeartbeatSender", Quiet)
    task = (asked(), context(folder), None, None)
    monkeypatch.setattr(module, "pull_task_input", lambda _: task)
    monkeypatch.setattr(module, "push_message", lambda _, reply, __: pushed.append(reply))
    monkeypatch.setattr(module, "push_task_output", lambda **task: ended.append(task))
    answer(SPEC, broken, threading.Lock())
    assert pushed == []
    assert ended == []


def refusal(status: int) -> httpx.HTTPStatusError:
    asked = httpx.Request("POST", "http://127.0.0.1:1/v1/runtime/pull-task-input")
    return httpx.HTTPStatusError("refused", request=asked, response=httpx.Response(status))


@pytest.mark.parametrize(
    ("fault", "level", "traceback"),
    [
        (refusal(httpx.codes.UNAUTHORIZED), "WARNING", False),
        (ObjectPullError("ab", "the object could not be found"), "WARNING", False),
        (refusal(httpx.codes.INTERNAL_SERVER_ERROR), "ERROR", True),
        (RuntimeError("no messages"), "ERROR", True),
    ],
)
def test_a_withdrawn_message_is_no_fault_of_this_site_and_leaves_no_traceback(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fault: Exception,
    level: str,
    traceback: bool,
) -> None:
    """Its run was stopped while it came: the SuperNode deletes it, and voids the task's token."""

    def pull(_: object) -> None:
        raise fault

    monkeypatch.setattr(module.RuntimeHttpClient, "from_server_address", lambda **_: Client())
    monkeypatch.setattr(module, "HeartbeatSender", Quiet)
    monkeypatch.setattr(module, "pull_task_input", pull)
    answer(SPEC, broken, threading.Lock())
    (line,) = caplog.records
    assert (line.levelname, line.exc_info is not None) == (level, traceback)


@pytest.mark.parametrize(
    ("answer", "heard"),
    [
        (SendTaskHeartbeatResponse(success=True), True),
        (SendTaskHeartbeatResponse(success=False), True),
        (refusal(httpx.codes.UNAUTHORIZED), True),
        (refusal(httpx.codes.SERVICE_UNAVAILABLE), False),
        (httpx.ConnectError("refused"), False),
    ],
)
def test_a_heartbeat_that_comes_too_late_ends_no_process(
    answer: SendTaskHeartbeatResponse | Exception, heard: bool
) -> None:
    class SuperNode(module.RuntimeHttpClient):
        def SendTaskHeartbeat(self, _: object) -> SendTaskHeartbeatResponse:
            if isinstance(answer, Exception):
                raise answer
            return answer

    assert module.beat(SuperNode("http://127.0.0.1:1")) is heard


def test_the_heart_of_a_task_stops_when_its_reply_cannot_be_pushed(
    folder: SiteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the SuperNode would wait for the reply for ever."""
    stopped: list[bool] = []
    ended: list[object] = []

    def broken_link(*_: object, **__: object) -> None:
        raise RuntimeError("the SuperNode is gone")

    monkeypatch.setattr(module.RuntimeHttpClient, "from_server_address", lambda **_: Client())
    monkeypatch.setattr(Quiet, "stop", lambda _: stopped.append(True))
    monkeypatch.setattr(module, "HeartbeatSender", Quiet)
    monkeypatch.setattr(module, "pull_task_input", lambda _: (asked(), context(folder), None, None))
    monkeypatch.setattr(
        module, "reply_to", lambda told, *_: (Message(RecordDict(), reply_to=told), "")
    )
    monkeypatch.setattr(module, "push_message", broken_link)
    monkeypatch.setattr(module, "push_task_output", lambda **task: ended.append(task))
    answer(SPEC, broken, threading.Lock())
    assert ended == []
    assert stopped == [True]


def spec(number: int) -> ExecutionSpec:
    return replace(SPEC, task_id=number + 1)


def test_a_task_that_waits_in_vain_does_not_keep_the_next_from_its_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stuck, done = threading.Event(), threading.Event()

    def answer(spec: ExecutionSpec, app: object, turn: threading.Lock) -> None:
        if spec.task_id == 1:
            stuck.wait(60)  # for a message of a stopped run, which never comes whole
            return
        with turn:
            done.set()

    monkeypatch.setattr(module, "answer", answer)
    executor = module.InProcessExecutor(ClientApp, 60.0)
    try:
        executor.launch(spec(0))
        assert executor.get_eligible_capacity(set(TaskType)) == ({TaskType.CLIENT_APP}, set())
        assert executor.launch(spec(1)).status is LaunchResultStatus.ACCEPTED
        assert done.wait(30)
    finally:
        stuck.set()


def test_one_task_is_at_work_at_a_time_and_there_are_never_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    go = threading.Event()
    working: list[int] = []
    most: list[int] = []

    def answer(spec: ExecutionSpec, app: object, turn: threading.Lock) -> None:
        with turn:
            working.append(spec.task_id)
            most.append(len(working))
            go.wait(60)
            working.remove(spec.task_id)

    monkeypatch.setattr(module, "answer", answer)
    executor = module.InProcessExecutor(ClientApp, 60.0)
    for number in range(module._TASKS):
        assert executor.launch(spec(number)).status is LaunchResultStatus.ACCEPTED
    assert executor.get_eligible_capacity(set(TaskType)) == (set(), set())
    assert executor.launch(spec(99)).status is LaunchResultStatus.CAPACITY_REJECTED
    tasks = list(executor._tasks)
    go.set()
    for task in tasks:
        task.join(30)
    assert most == [1] * module._TASKS


HANGS = """
import time
from client.deployment.worker import Turn
turn = Turn(0.2)
with turn:
    pass  # ends in time: nothing happens
time.sleep(0.4)
print("alive", flush=True)
with turn:
    time.sleep(60)
"""


def test_a_task_that_hangs_ends_the_worker_which_is_then_started_anew() -> None:
    """As a read from a dead network drive does, which nothing can interrupt."""
    done = subprocess.run([sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=50)
    assert done.stdout == "alive\n"
    assert done.returncode == module.HUNG
    assert "node.task_deadline = 0.2 s" in done.stderr
