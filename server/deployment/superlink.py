"""Run Flower's SuperLink on two ports, with the enrolled keys and nobody else's.

``python -m server.deployment.superlink FOLDER PARENT`` is a child process of ``flower-server``; it
ends when the process PARENT does. Flower's own command line parses the options and Flower builds
the application; only the two sockets and the guard are ours. The modules used for that are not
public: the range of Flower's versions in pyproject.toml is the tested one.
"""

import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from flwr.supercore import sql_mixin
from flwr.supercore.app_utils import start_parent_process_monitor
from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME
from flwr.superlink.cli.flower_superlink import (
    SuperLinkLifespan,
    _parse_superlink_lifespan_config,
)
from flwr.superlink.main import create_app

from fedprompt.errors import FedpromptError
from fedprompt.processes import logs
from fedprompt.protocol import address
from server.deployment import nodes, sender_check
from server.deployment.config import DeploymentConfig
from server.deployment.folder import DeploymentFolder
from server.deployment.guard import Guard

_KEEP_ALIVE = 75  # seconds an idle connection stays open; longer than a heartbeat (30 s)
_REQUESTS = 32  # of the largest size that a reply may take
_BUSY_TIMEOUT = 60.0  # seconds a write may wait for others; as long as Flower's requests may take
_PRAGMAS, _TIMEOUT = "SQLITE_PRAGMAS", "busy_timeout"  # Flower's private names; ms
_GRACE = 2  # seconds that open requests have when the server leaves


def main() -> None:
    """Serve until told to stop."""
    folder = DeploymentFolder(Path(sys.argv[1]))
    start_parent_process_monitor(int(sys.argv[2]))
    serve(folder, folder.config())


def serve(folder: DeploymentFolder, config: DeploymentConfig) -> None:
    """Run the SuperLink of a deployment folder."""
    os.umask(0o077)  # Flower's database holds who is registered
    sys.argv = ["flower-superlink", *options(folder, config)]
    lifespan = _parse_superlink_lifespan_config()
    set_busy_timeout()
    sender_check.install(_REQUESTS * config.max_request)
    app = create_app(lifespan, SuperLinkLifespan)
    guarded = Guard(app, config.port, config.max_request)
    if config.insecure:  # nodes register by themselves, and no key tells whose they are
        nodes.write(folder.path, [])
        _serve(guarded, folder, config)
    else:
        with _following(app.state.linkstate_factory.state(), folder.path):
            _serve(guarded, folder, config)


@contextmanager
def _following(state: nodes.LinkState, folder: Path) -> Iterator[None]:
    """Keep the registered keys equal to the enrolled ones."""
    nodes.sync(state, folder)
    stopped = threading.Event()
    follower = threading.Thread(target=nodes.follow, args=(state, folder, stopped), daemon=True)
    follower.start()
    try:
        yield
    finally:
        stopped.set()
        follower.join(2 * nodes.PAUSE)


def set_busy_timeout(seconds: float = _BUSY_TIMEOUT) -> None:
    """Let every database connection opened from now on wait for a busy database.

    A hundred sites that answer at once write to one SQLite file from as many threads. Flower 1.41
    gives up after 5 s, and the reply is lost: on a busy machine one of a hundred was.
    """
    pragmas = dict[str, str](getattr(sql_mixin, _PRAGMAS))
    pragmas[_TIMEOUT] = str(round(1000 * seconds))
    setattr(sql_mixin, _PRAGMAS, tuple(pragmas.items()))


def options(folder: DeploymentFolder, config: DeploymentConfig) -> list[str]:
    """Return the SuperLink's command line; Flower's own processes use the control port."""
    common = ["--host", "127.0.0.1", "--port", str(config.control_port)]
    common += ["--disable-runtime-dependency-installation"]
    if config.insecure:
        return [*common, "--insecure", "--database", FLWR_IN_MEMORY_DB_NAME]
    return [
        *common,
        "--database", str(folder.database),
        "--ssl-ca-certfile", str(folder.ca_certificate),
        "--ssl-certfile", str(folder.certificate),
        "--ssl-keyfile", str(folder.key),
        "--enable-supernode-auth",
    ]  # fmt: skip


def _serve(app: Any, folder: DeploymentFolder, config: DeploymentConfig) -> None:
    tls = {} if config.insecure else {
        "ssl_certfile": str(folder.certificate), "ssl_keyfile": str(folder.key)
    }  # fmt: skip
    settings = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=_GRACE,
        server_header=False,
        **tls,  # type: ignore[arg-type]
    )
    sockets = [*_listen(config.host, config.port), *_listen("127.0.0.1", config.control_port)]
    uvicorn.Server(settings).run(sockets=sockets)


def _listen(host: str, port: int) -> list[socket.socket]:
    try:
        return address.listen(host, port)
    except OSError as error:
        raise FedpromptError(
            f"{address.join(host, port)} cannot be listened on: {error.strerror}; another "
            "server may run, or choose other ports in [deployment]"
        ) from None


if __name__ == "__main__":
    logs.configure(None)
    main()
