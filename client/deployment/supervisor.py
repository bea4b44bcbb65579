"""``flower-client start``: keep a site's SuperNode and its worker running until told to stop.

A child that ends is started again, after a pause that doubles up to two minutes. A site whose key
the server refuses is not let loose on the server: it asks again after half a minute, then ever more
seldom, up to a quarter of an hour, and gives up after ``node.patience`` of nothing but refusals.
"""

import logging
import sys
import threading
import time

from client.deployment import surroundings
from client.deployment.connection_status import REFUSED
from client.deployment.site_folder import SiteFolder
from fedprompt.errors import RefusedError
from fedprompt.processes.child import SETTLED, Backoff, Child, Ended

_LOOK = 0.2  # seconds between two looks at the children
_log = logging.getLogger("client.deployment")


class Supervisor:
    """Hold the two children of a site.

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
        env = surroundings.environment(folder, self._node)
        self._port = 0
        self.node = Child("supernode", self._node_command, env)
        self.worker = Child("worker", self._worker_command, env)
        self._refusals = Backoff(30.0, 900.0)
        self._refused_since: float | None = None

    def run(self, stopped: threading.Event) -> None:
        """Tend the children until stopped, then end them.

        Raises
        ------
        RefusedError
            The server has refused this site's key for as long as its patience lasts.
        StorageError
            The folder cannot be written.
        """
        surroundings.prepare(self._folder)
        try:
            while not stopped.wait(_LOOK):
                if ended := self.node.tend():
                    self._node_ended(ended)
                if self._worker_can_run() and (ended := self.worker.tend()):
                    self.worker.again(ended)
        finally:
            for child in (self.node, self.worker):
                child.ask_to_end()
            for child in (self.node, self.worker):
                child.end()

    def _node_ended(self, ended: Ended) -> None:
        if ended.lasted > SETTLED or ended.code != REFUSED:
            self._refused_since = None
            self._refusals.reset()
        if ended.code != REFUSED:
            self.node.again(ended)
            return
        now = time.monotonic()
        self._refused_since = self._refused_since or now
        why = (
            f"{self._node.server} refuses this site's key: it is revoked, or this machine's clock "
            "is over 5 s ahead of the server's or 5 min behind; or this site's last client was "
            "killed within the last minute. If it stays so, ask who enrolled the site"
        )
        if now - self._refused_since >= self._node.patience:
            raise RefusedError(why)
        pause = self._refusals.next()
        told = {"event": "refused", "pause": round(pause)}
        _log.error("%s; asking again in %.0f s", why, pause, extra=told)
        self.node.wait(pause)

    def _worker_can_run(self) -> bool:
        """Tell whether the worker runs, or the SuperNode is ready for it."""
        return self.worker.pid is not None or surroundings.answers(self._port)

    def _node_command(self) -> list[str]:
        if not surroundings.is_free(self._port):
            self._port = surroundings.free_port()
            self.worker.ask_to_end()  # it starts again, at the new port
        module = [sys.executable, "-m", "client.deployment.supernode"]
        return [*module, str(self._folder.path), str(self._port)]

    def _worker_command(self) -> list[str]:
        module = [sys.executable, "-m", "client.deployment.worker"]
        deadline = str(self._node.task_deadline)
        return [*module, f"127.0.0.1:{self._port}", str(self._folder.secret), deadline]
