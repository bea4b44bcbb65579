"""Be many sites in one process: ``python -m benchmarks.fleet SECONDS FOLDER ...``.

Each folder is a site's, with a key and a policy of its own. It speaks Flower's fleet API over TLS
through Flower's own connection, looks for messages every so many seconds, and the real ClientApp
answers. What it lacks of a real site is processes: no SuperNode, no worker, one CLIP for all.
"""

import functools
import logging
import random
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.app import Context, Message, RecordDict
from flwr.common.config import get_fused_config_from_fab
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import (
    pull_and_inflate_object_from_tree,
    push_objects,
)
from flwr.supercore.run import RunNotRunningException
from flwr.supernode.fleet_http_connection import http_request_response

from client import app as client_app
from client.deployment.site_folder import SiteFolder
from fedprompt.processes import logs, parent_watchdog

_PULL = 60.0  # seconds a message's arrays may take
_PAUSE = 5.0  # seconds before a lost connection is made anew

_log = logging.getLogger("fedprompt.fleet")


class RunSettings:
    """Keep the settings of the newest runs; all sites of the process are told the same."""

    def __init__(self) -> None:
        self._known: dict[int, dict[str, Any]] = {}
        self._lock = threading.Lock()

    def of(self, run: int, get_run: Callable[..., Any], get_fab: Callable[..., Any]) -> Any:
        """Return a run's settings, which the first site that needs them asks for."""
        with self._lock:
            if run not in self._known:
                found = get_run(run)
                fab = get_fab(found.fab_hash, run)
                self._known = {run: get_fused_config_from_fab(fab.content, found)}
            return self._known[run]


class Node:
    """Hold one simulated site.

    Parameters
    ----------
    folder
        The site's, as ``flower-client join`` makes it.
    runs
        Shared by all sites of the process.
    turn
        Held while a site computes: one at a time.
    poll
        Seconds between two looks for a message; a SuperNode's are 3.
    """

    def __init__(
        self, folder: SiteFolder, runs: RunSettings, turn: threading.Lock, poll: float
    ) -> None:
        self._folder, self._runs, self._turn, self._poll = folder, runs, turn, poll
        self._server = folder.node().server
        key = load_ssh_private_key(folder.key.read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self._keys = key, key.public_key()

    def live(self) -> None:
        """Take part for ever; a connection that breaks in a way Flower gives up on is made anew."""
        time.sleep(random.uniform(0, self._poll))  # noqa: S311 (not for secrets)
        while True:
            ca = str(self._folder.ca_certificate)
            try:
                with http_request_response(self._server, False, ca, self._keys) as link:
                    self._serve(*link)
            except (Exception, SystemExit) as error:
                _log.warning("%s: connecting again: %r", self._folder.path.name, error)
            time.sleep(_PAUSE)

    def _serve(
        self,
        node: int,
        receive: Callable[[], tuple[Message, ObjectTree] | None],
        send: Callable[[Message, ObjectTree, float], tuple[set[str], str]],
        get_run: Callable[..., Any],
        get_fab: Callable[..., Any],
        pull: Callable[[int, str], bytes],
        push: Callable[[int, str, str, bytes], None],
        confirm: Callable[[int, str], None],
    ) -> None:
        """Answer messages until the connection breaks."""
        while True:
            try:
                found = receive()
                if found is None:
                    time.sleep(self._poll)
                    continue
                run = found[0].metadata.run_id
                message = pull_and_inflate_object_from_tree(
                    found[1],
                    functools.partial(pull, run),
                    functools.partial(confirm, run),
                    return_type=Message,
                    max_time=_PULL,
                )
                message.metadata.__dict__["_message_id"] = found[1].object_id
                reply = self._answer(message, node, self._runs.of(run, get_run, get_fab))
                self._send(reply, run, send, push)
            except RunNotRunningException:
                time.sleep(self._poll)  # the run was stopped meanwhile: nobody waits for this reply
            except Exception as error:  # a message that cannot be answered is the deadline's to end
                _log.warning("%s: a message is lost: %r", self._folder.path.name, error)
                time.sleep(self._poll)

    def _answer(self, message: Message, node: int, settings: dict[str, Any]) -> Message:
        context = Context(
            run_id=message.metadata.run_id,
            node_id=node,
            node_config={"site-folder": str(self._folder.path)},
            state=RecordDict(),
            run_config=settings,
        )
        with self._turn:
            return client_app.app(message, context)

    def _send(
        self,
        reply: Message,
        run: int,
        send: Callable[[Message, ObjectTree, float], tuple[set[str], str]],
        push: Callable[[int, str, str, bytes], None],
    ) -> None:
        """Send a reply as a SuperNode does: its tree first, then its objects."""
        reply.metadata.__dict__["_message_id"] = reply.object_id
        with no_object_id_recompute():
            tree, objects = get_object_tree(reply), get_all_nested_objects(reply)
            wanted, session = send(reply, tree, 0.0)
            push_objects(
                objects, functools.partial(push, run, session), object_ids_to_push=set(wanted)
            )


def live(nodes: Sequence[Node]) -> None:
    """Be some sites until this process is ended."""
    for name in ("flwr", "client", "httpx"):
        logging.getLogger(name).setLevel(logging.ERROR)
    torch.set_num_threads(1)
    # the app of a real site keeps the last two; here there are as many sites as nodes
    kept = functools.lru_cache(len(nodes) + 1)(client_app._own_site.__wrapped__)
    setattr(client_app, "_own_site", kept)  # noqa: B010
    threads = [threading.Thread(target=node.live, daemon=True) for node in nodes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main(poll: float, folders: list[str]) -> None:
    """Be the sites of some folders until this process is ended."""
    parent_watchdog.watch_stdin()
    logs.configure(None)
    runs, turn = RunSettings(), threading.Lock()
    live([Node(SiteFolder(Path(folder)), runs, turn, poll) for folder in folders])


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2:])
