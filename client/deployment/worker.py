"""Answer a SuperNode's messages in one long-lived process that keeps CLIP in memory.

Flower starts a process for every message, which loads torch and CLIP each time, and runs the code
that the server sends. This worker takes tasks from Flower's SuperExec loop as any executor does,
but runs the ClientApp that is installed at this site: code from a server's app bundle is never
unpacked. The modules used are not public: the range of Flower's versions in pyproject.toml is the
tested one.
"""

import functools
import importlib
import logging
import os
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.common.constant import SubStatus
from flwr.proto.runtime_pb2 import SendTaskHeartbeatRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.heartbeat import HeartbeatSender
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    pull_and_inflate_object_from_tree,
)
from flwr.supercore.interceptors import RuntimeTokenHttpInterceptor, RuntimeVersionHttpInterceptor
from flwr.supercore.retry import make_simple_http_retry_invoker
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.superexec import run_superexec as superexec
from flwr.supercore.superexec.executor.types import ExecutionSpec, LaunchResult
from flwr.supernode.runtime import run_clientapp
from flwr.supernode.runtime.run_clientapp import pull_task_input, push_message, push_task_output

from client.deployment.egress_filter import EgressFilter, folder_of
from fedprompt.processes import logs, parent_watchdog

log = logging.getLogger("fedprompt.worker")


_TASKS = 4  # at once; all but one wait for their message's arrays, or for their turn
HUNG = 17  # exit code of a worker whose task does not end
_PULL = 300.0  # seconds those arrays may take; Flower would wait for two hours


class Turn:
    """Run one task at a time, and end the process if one takes too long.

    A read from a dead network drive never returns and cannot be interrupted; the supervisor starts
    another worker.
    """

    def __init__(self, deadline: float) -> None:
        self._deadline, self._lock = deadline, threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()
        self._watch = threading.Timer(self._deadline, self._give_up)
        self._watch.daemon = True
        self._watch.start()

    def __exit__(self, *_: object) -> None:
        self._watch.cancel()
        self._lock.release()

    def _give_up(self) -> None:
        log.error(
            "a task has not ended within node.task_deadline = %g s; the worker is started anew",
            self._deadline, extra={"event": "hung"},
        )  # fmt: skip
        logging.shutdown()
        os._exit(HUNG)


class InProcessExecutor:
    """Run ClientApp tasks on threads of this process, one of them at work at a time.

    The message of a run that was stopped meanwhile never comes whole. Its task waits in vain, and
    must not keep the next one from its turn.

    Parameters
    ----------
    app
        Returns the app that answers; called once a task.
    deadline
        Seconds a task may be at work.
    """

    def __init__(self, app: Callable[[], ClientApp], deadline: float) -> None:
        self._app = app
        self._tasks: list[threading.Thread] = []
        self._turn = Turn(deadline)

    def get_eligible_capacity(
        self,
        supported_task_types: set[TaskType],
        *,
        insecure: bool = False,  # noqa: ARG002 (Flower's interface)
        root_certificates_path: str | None = None,  # noqa: ARG002
    ) -> tuple[set[TaskType], set[str]]:
        """Return what can be started now: ClientApps, or nothing while there are enough."""
        return (set() if self._busy() else supported_task_types & {TaskType.CLIENT_APP}), set()

    def wait_for_capacity(self, *_: object, **__: object) -> None:
        """Wait until one of the tasks is over."""
        while self._busy():
            self._tasks[0].join(1.0)

    def launch(self, spec: ExecutionSpec) -> LaunchResult:
        """Start a task."""
        if self._busy():
            return LaunchResult.capacity_rejected(f"{_TASKS} tasks are running")
        task = threading.Thread(
            target=answer,
            args=(spec, self._app, self._turn),
            name=f"task-{spec.task_id}",
            daemon=True,
        )
        task.start()
        self._tasks.append(task)
        return LaunchResult.accepted()

    def reconcile(self) -> None:
        """Do nothing: there are no processes to collect."""

    def close(self) -> None:
        """Do nothing: the thread is a daemon and ends with the process."""

    def _busy(self) -> bool:
        self._tasks = [task for task in self._tasks if task.is_alive()]
        return len(self._tasks) >= _TASKS


def answer(
    spec: ExecutionSpec, app: Callable[[], ClientApp], turn: AbstractContextManager[object]
) -> None:
    """Pull a task's message, let the app answer it and push the reply.

    A task that fails is not reported as finished: the SuperNode, which would wait for its reply for
    ever, misses the heartbeat instead and answers that the app stopped.
    """
    client = RuntimeHttpClient.from_server_address(
        server_address=spec.runtime_api_address,
        insecure=spec.insecure,
        root_certificates=None,
        interceptors=[
            RuntimeVersionHttpInterceptor(component_name="flwr-clientapp"),
            RuntimeTokenHttpInterceptor(spec.token),
        ],
        retry_invoker=make_simple_http_retry_invoker(),
    )
    heartbeat = HeartbeatSender(functools.partial(beat, client))
    heartbeat.start()
    try:
        message, context, _run, _fab = pull_task_input(client)
        with turn:
            reply, reason = reply_to(message, context, app)
        push_message(client, reply, context)
        status = SubStatus.FAILED if reply.has_error() else SubStatus.COMPLETED
        push_task_output(client=client, context=context, sub_status=status, details=reason)
    except Exception as error:
        if _withdrawn(error):
            log.warning("a message was withdrawn before all of it came; it is not answered")
        else:
            log.exception("a task could not be answered")
    finally:
        heartbeat.stop()
        client.close()


def beat(client: RuntimeHttpClient) -> bool:
    """Send a heartbeat of a running task to the SuperNode; return whether it was received.

    Flower's own function ends the process when a task's time is up, and with it the other tasks.
    """
    try:
        client.SendTaskHeartbeat(SendTaskHeartbeatRequest())
    except httpx.TransportError:
        return False
    except httpx.HTTPStatusError as refused:
        return not refused.response.is_server_error
    return True


def _withdrawn(error: Exception) -> bool:
    """Return whether a task failed because the SuperNode could not receive all of its message."""
    if isinstance(error, httpx.HTTPStatusError):  # its token is void
        return error.response.status_code == httpx.codes.UNAUTHORIZED
    return isinstance(error, ObjectPullError)


def reply_to(
    message: Message, context: Context, app: Callable[[], ClientApp]
) -> tuple[Message, str]:
    """Return the app's reply; errors outside the app pass the egress filter too.

    Raises
    ------
    StorageError
        The egress log cannot be written: nothing leaves.
    """
    try:
        reply = app()(message, context)
    except Exception as error:  # the app cannot be loaded, or the egress log could not be written
        folder = folder_of(context)
        if folder is None:
            raise
        reply = EgressFilter(folder).refuse(message, error)
    return reply, str(reply.error.reason) if reply.has_error() else ""


def work(address: str, secret: bytes, app: Callable[[], ClientApp], deadline: float) -> None:
    """Take tasks from the SuperNode at ``address`` until told to stop.

    A task that takes more than ``deadline`` seconds ends the process with code ``HUNG``.
    """
    executor = InProcessExecutor(app, deadline)
    pull = functools.partial(pull_and_inflate_object_from_tree, max_time=_PULL)
    setattr(run_clientapp, "pull_and_inflate_object_from_tree", pull)  # noqa: B010
    setattr(superexec, "get_executor", lambda *_, **__: executor)  # noqa: B010
    superexec.run_superexec(
        runtime_api_address=address,
        insecure=True,  # loopback; the secret proves who asks
        superexec_auth_secret=secret,
        runtime_dependency_install=False,
    )


def main() -> None:
    """Run ``python -m client.deployment.worker ADDRESS SECRET-FILE DEADLINE``."""
    address, secret, deadline = sys.argv[1:]
    parent_watchdog.watch_stdin()
    logs.configure(None)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        work(address, Path(secret).read_bytes(), _app, float(deadline))
    except SystemExit as left:
        logging.shutdown()
        os._exit(left.code if isinstance(left.code, int) else 1)  # a task may be inside torch


def _app() -> ClientApp:
    module = importlib.import_module("client.app")  # loads torch: after the first task came
    app: ClientApp = module.app
    return app


if __name__ == "__main__":
    main()
