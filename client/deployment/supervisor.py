"""``flower-client start``: keep a site's SuperNode and its worker running until told to stop.

A child that ends is restarted, after a pause that doubles up to two minutes. A site whose key the
server refuses waits longer: it asks again after half a minute, then ever less often, up to a
quarter of an hour, and gives up after ``node.patience`` seconds of nothing but refusals.
"""

import logging
import secrets
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType

from client.deployment.command import FolderArgument
from client.deployment.connection_status import REFUSED
from client.deployment.site_folder import PRIVATE, NodeConfig, SiteFolder
from fedprompt import toml
from fedprompt.errors import ConfigError, RefusedError, StorageError
from fedprompt.files.file_lock import lock
from fedprompt.processes import flower_environment, logs
from fedprompt.processes.child import SETTLED, Backoff, Ended, RestartedChild
from fedprompt.protocol.address import free_port, is_answering, is_free
from fedprompt.storage import write_atomic

_POLL = 0.2  # seconds between two looks at the children
_log = logging.getLogger("client.deployment")


def start(folder: FolderArgument) -> None:
    """Take part until told to stop; SIGTERM and Ctrl-C end everything within seconds, exit code 0.

    Processes that die are restarted, and the server may be away for days. A site whose key the
    server refuses asks ever less often and gives up after node.patience seconds, exit code 16.
    """
    take_part(SiteFolder(folder))


def take_part(folder: SiteFolder) -> None:
    """Run a site's processes until SIGTERM or SIGINT.

    Raises
    ------
    FedpromptError
        As `Supervisor.run` and `single_instance`.
    """
    supervisor = Supervisor(folder)
    with single_instance(folder), _stop_signals() as stopped:
        _remove_foreign_handlers()
        logs.configure(folder.logs / "client.jsonl", as_json=not sys.stderr.isatty())
        node = folder.node()
        extra = {"event": "start", "site": node.name}
        _log.info("site %s takes part with %s", node.name or "(no name)", node.server, extra=extra)
        supervisor.run(stopped)
        _log.info("stopped", extra={"event": "stop"})


@contextmanager
def single_instance(folder: SiteFolder) -> Iterator[None]:
    """Keep a second client out of a folder; the system releases it when this process ends.

    Raises
    ------
    ConfigError
        A client runs there already.
    StorageError
        The folder cannot be written.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(lock(folder.lock, timeout=0))
        except TimeoutError:
            raise ConfigError(
                f"a client runs in {folder.path} already; stop it first, or look at "
                f"`flower-client status {folder.path}`"
            ) from None
        except OSError as error:
            raise StorageError(f"{folder.lock} cannot be written: {error.strerror}") from None
        yield


def environment(folder: SiteFolder, node: NodeConfig) -> dict[str, str]:
    """Return the environment of the processes: Flower's, and how often the worker asks."""
    return {
        **flower_environment.variables(folder.flower.resolve()),
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": str(node.poll),
        "PYTHONUNBUFFERED": "1",
    }


def write_runtime_files(folder: SiteFolder) -> None:
    """Write what both processes read: a new secret between them, and the folder's path.

    Raises
    ------
    StorageError
        The folder cannot be written.
    """
    try:
        folder.flower.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{folder.flower} cannot be made: {error.strerror}") from None
    write_atomic(folder.secret, secrets.token_bytes(32), PRIVATE)
    path = toml.dumps(str(folder.path.resolve()))
    write_atomic(folder.node_config, f"site-folder = {path}\n".encode(), PRIVATE)


class Supervisor:
    """Run the two child processes of a site.

    Parameters
    ----------
    folder
        The site's.

    Raises
    ------
    ConfigError
        This is no site's folder, or a setting is refused.
    """

    def __init__(self, folder: SiteFolder) -> None:
        self._folder, self._node = folder, folder.node()
        env = environment(folder, self._node)
        self._port = 0
        self.node = RestartedChild("supernode", self._node_command, env)
        self.worker = RestartedChild("worker", self._worker_command, env)
        self._refusals = Backoff(30.0, 900.0)
        self._refused_since: float | None = None

    def run(self, stopped: threading.Event) -> None:
        """Keep the children running until stopped, then end them.

        Raises
        ------
        RefusedError
            The server has refused this site's key for ``node.patience`` seconds.
        StorageError
            The folder cannot be written.
        """
        write_runtime_files(self._folder)
        try:
            while not stopped.wait(_POLL):
                if ended := self.node.poll():
                    self._node_ended(ended)
                if self._worker_can_run() and (ended := self.worker.poll()):
                    self.worker.restart(ended)
        finally:
            for child in (self.node, self.worker):
                child.terminate()
            for child in (self.node, self.worker):
                child.end()

    def _node_ended(self, ended: Ended) -> None:
        if ended.lasted > SETTLED or ended.code != REFUSED:
            self._refused_since = None
            self._refusals.reset()
        if ended.code != REFUSED:
            self.node.restart(ended)
            return
        now = time.monotonic()
        self._refused_since = self._refused_since or now
        reason = (
            f"{self._node.server} refuses this site's key: it is revoked, or this machine's clock "
            "is over 5 s ahead of the server's or 5 min behind; or this site's last client was "
            "killed within the last minute. If this persists, ask the administrator of the server"
        )
        if now - self._refused_since >= self._node.patience:
            raise RefusedError(reason)
        pause = self._refusals.next()
        extra = {"event": "refused", "pause": round(pause)}
        _log.error("%s; asking again in %.0f s", reason, pause, extra=extra)
        self.node.postpone(pause)

    def _worker_can_run(self) -> bool:
        """Return whether the worker runs, or the SuperNode is ready for it."""
        return self.worker.pid is not None or is_answering(self._port)

    def _node_command(self) -> list[str]:
        if not is_free(self._port):
            self._port = free_port()
            self.worker.terminate()  # it is restarted, at the new port
        module = [sys.executable, "-m", "client.deployment.supernode"]
        return [*module, str(self._folder.path), str(self._port)]

    def _worker_command(self) -> list[str]:
        module = [sys.executable, "-m", "client.deployment.worker"]
        deadline = str(self._node.task_deadline)
        return [*module, f"127.0.0.1:{self._port}", str(self._folder.secret), deadline]


def _remove_foreign_handlers() -> None:
    """Remove the handler that open_clip installs by logging without a logger: it repeats lines."""
    root = logging.getLogger()
    for handler in list(root.handlers):
        if type(handler) is logging.StreamHandler:
            root.removeHandler(handler)


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """Set an event on SIGTERM and SIGINT, which are no errors of a service."""
    stopped = threading.Event()

    def stop(_: int, __: FrameType | None) -> None:
        stopped.set()

    numbers = (signal.SIGTERM, signal.SIGINT)
    previous = [signal.signal(number, stop) for number in numbers]
    try:
        yield stopped
    finally:
        for number, handler in zip(numbers, previous, strict=True):
            signal.signal(number, handler)
