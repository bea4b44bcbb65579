"""What a site's processes need around them: a quiet environment, a port, a secret, to be alone."""

import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from client.deployment.config import NodeConfig
from client.deployment.site_folder import SiteFolder
from fedprompt import toml
from fedprompt.errors import ConfigError, StorageError
from fedprompt.files.file_lock import lock
from fedprompt.processes import flower_environment
from fedprompt.storage import write_atomic

PRIVATE = 0o600


def environment(folder: SiteFolder, node: NodeConfig) -> dict[str, str]:
    """Return the environment of the processes: Flower's, and how often the worker asks."""
    return {
        **flower_environment.variables(folder.flower.resolve()),
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": str(node.poll),
        "PYTHONUNBUFFERED": "1",
    }


def prepare(folder: SiteFolder) -> None:
    """Write what the two processes read: a new secret between them, and where the folder is.

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
    where = toml.dumps(str(folder.path.resolve()))
    write_atomic(folder.node_config, f"site-folder = {where}\n".encode(), PRIVATE)


@contextmanager
def alone(folder: SiteFolder) -> Iterator[None]:
    """Keep a second client out of a folder; the system lets go when this process is gone.

    Raises
    ------
    ConfigError
        A client runs there already.
    StorageError
        The folder cannot be written.
    """
    try:
        with lock(folder.lock, timeout=0):
            yield
    except TimeoutError:
        raise ConfigError(
            f"a client runs in {folder.path} already; stop it first, or look at "
            f"`flower-client status {folder.path}`"
        ) from None
    except OSError as error:
        raise StorageError(f"{folder.lock} cannot be written: {error.strerror}") from None


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    """Tell whether somebody listens on a port of the loopback interface."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return bool(port) and probe.connect_ex(("127.0.0.1", port)) == 0


def is_free(port: int) -> bool:
    """Tell whether nobody listens on a port of the loopback interface."""
    if not port:
        return False
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as uvicorn does
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
