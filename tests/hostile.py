"""A site whose people run a client of their own: real SuperNode, real worker, another ClientApp.

``python -m tests.hostile FOLDER CONDUCT`` takes the place of ``flower-client start``.
"""

import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from flwr.app import Context, Message

from client.app import app
from client.deployment.site_folder import SiteFolder
from client.deployment.supervisor import write_runtime_files
from client.deployment.worker import work
from fedprompt.processes import logs
from fedprompt.prompt_state import PromptState
from fedprompt.protocol.address import free_port
from tests.sites import repack

ATTACKS: dict[str, Callable[[PromptState], Mapping[str, np.ndarray]]] = {
    "flip": lambda arrays: {n: -50 * a if n.endswith(".B") else a for n, a in arrays.items()},
    "norm": lambda arrays: {name: array + np.float32(1e18) for name, array in arrays.items()},
    "nan": lambda arrays: {name: array * np.float32("nan") for name, array in arrays.items()},
    "shape": lambda arrays: {name: array.T.copy() for name, array in arrays.items()},
}
_lies: list[tuple[str, int | str]] = [
    ("partition", 0),
    ("backbone", "0" * 64),
    ("tokenizer", "1" * 64),
    ("classes", '["red","green","cyan"]'),
    ("version", "9.9.9"),
]
_begun: list[int] = []  # rounds this site was asked to train in


def attack(message: Message, context: Context) -> Message:
    """Answer as the honest app does, then spoil it: another attack in each round."""
    reply = app(message, context)
    if message.metadata.message_type == "train" and not reply.has_error():
        server_round = int(message.content["config"]["round"])
        if server_round not in _begun:
            _begun.append(server_round)
        name = list(ATTACKS)[(len(_begun) - 1) % len(ATTACKS)]
        reply.content = repack(reply.content, ATTACKS[name])
    return reply


def impostor(message: Message, context: Context) -> Message:
    """Say something else than the truth at each asking, then the truth."""
    reply = app(message, context)
    if message.metadata.message_type == "query" and not reply.has_error() and _lies:
        key, value = _lies.pop(0)
        reply.content["identity"][key] = value
    return reply


CONDUCT = {"attack": attack, "impostor": impostor, "honest": app}


def main() -> None:
    """Take part until told to stop."""
    folder, conduct = SiteFolder(Path(sys.argv[1])), CONDUCT[sys.argv[2]]
    logs.configure(None)
    write_runtime_files(folder)
    port = free_port()
    command = [sys.executable, "-m", "client.deployment.supernode", str(folder.path), str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as node:  # ends with its standard input
        try:
            work(f"127.0.0.1:{port}", folder.secret.read_bytes(), lambda: conduct, 600.0)
        finally:
            node.send_signal(signal.SIGTERM)


if __name__ == "__main__":
    main()
