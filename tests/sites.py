"""A toy site for tests of the server: real ClientApp, no CLIP, every reply can be spoilt."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import Mod

from fedprompt.prompt_state import PromptState
from fedprompt.settings.server import ServerConfig
from fedprompt.wire import (
    from_array_record,
    identity_digest,
    receipt,
    to_array_record,
)
from server.merge.privacy.mechanism import Mechanism
from server.rounds.federation import Description, Task
from server.rounds.local_grid import LocalGrid
from server.rounds.loop import Rounds
from server.run_folder.checkpoint import Checkpoint
from tests import round_lines

IDENTITY = {
    "version": "0.1.0",
    "backbone": "b" * 64,
    "tokenizer": "t" * 64,
    "classes": '["cat","dog"]',
    "method": "dip",
}
ENROLLED = 100

Changed = Mapping[str, npt.NDArray[np.floating]]
Spoil = Callable[[Message, RecordDict], RecordDict]  # a site's message and honest reply -> reply


def start(length: int = 4, rank: int = 1, width: int = 32) -> PromptState:
    """Return factors as a prompt starts with them: A random, B zero."""
    rng = np.random.default_rng(7)
    return PromptState(
        {
            "ctx.A": rng.normal(scale=0.02, size=(length, rank)),
            "ctx.B": np.zeros((rank, width)),
        }
    )


def task(arrays: Changed | None = None) -> Task:
    """Return a task over the toy prompt."""
    arrays = start() if arrays is None else PromptState(arrays)
    return Task(arrays, IDENTITY, lambda _: Description(0.5), arrays.sha256)


def config(folder: object, **settings: object) -> ServerConfig:
    """Return server settings with short deadlines."""
    defaults = {"output": str(folder), "rounds": 3, "deadline": 30.0, "join_deadline": 5.0}
    return ServerConfig(**(defaults | {"rule": "product"} | settings))


def run(
    app: ClientApp,
    sites: int,
    told: Task,
    chosen: ServerConfig,
    *,
    mechanism: Mechanism | None = None,
    workers: int = 1,
) -> tuple[Checkpoint, list[dict[str, Any]]]:
    """Run the rounds of a task in this process; return the last state and the record's lines."""
    with LocalGrid(app, sites, {}, workers) as grid:
        state = Rounds(grid, told, chosen, sites, mechanism).run()
    return state, round_lines.read(Path(chosen.output))


def client(
    train: Mapping[int, Spoil] | None = None,
    evaluate: Mapping[int, Spoil] | None = None,
    query: Mapping[int, Spoil] | None = None,
    identity: Mapping[str, str] = IDENTITY,
    mods: Sequence[Mod] = (),
    centres: Callable[[int], ArrayRecord] | None = None,
    start: Mapping[int, Spoil] | None = None,
) -> ClientApp:
    """Return a ClientApp whose replies at the given partitions are spoilt.

    ``centres`` says what a site would start the prompt from; ``start`` spoils that reply.
    """
    app = ClientApp()

    @app.query()
    def _query(message: Message, context: Context) -> Message:
        partition = int(context.node_config["partition-id"])
        mine = {**identity, "num-examples": ENROLLED, "partition": partition}
        content = RecordDict({"identity": ConfigRecord(mine)})
        return _reply(message, content, partition, query)

    @app.train(mods=list(mods))
    def _train(message: Message, context: Context) -> Message:
        partition = int(context.node_config["partition-id"])
        settings = message.content["config"]
        arrays = unpack(message)
        rng = np.random.default_rng([partition, settings["round"], settings["seed"]])
        moved = {
            n: (a + rng.normal(scale=0.1, size=a.shape)).astype(np.float32)
            for n, a in arrays.items()
        }
        content = RecordDict(
            {
                "arrays": to_array_record(moved, dtype(message)),
                "metrics": MetricRecord(
                    {
                        "num-examples": ENROLLED - partition % 50,
                        "receipt": stamp(message, partition, identity),
                        "loss": 1.0 / settings["round"],
                    }
                ),
            }
        )
        return _reply(message, content, partition, train)

    def _centres(message: Message, context: Context) -> Message:
        assert centres is not None
        partition = int(context.node_config["partition-id"])
        metrics = {
            "num-examples": ENROLLED - partition % 50,
            "receipt": stamp(message, partition, identity),
        }
        content = RecordDict({"arrays": centres(partition), "metrics": MetricRecord(metrics)})
        return _reply(message, content, partition, start)

    if centres:
        app.query("centres")(_centres)

    @app.evaluate()
    def _evaluate(message: Message, context: Context) -> Message:
        partition = int(context.node_config["partition-id"])
        metrics = {
            "num-examples": 20,
            "receipt": stamp(message, partition, identity),
            "correct": 10 + partition % 10,
            "loss": 0.5,
        }
        content = RecordDict({"metrics": MetricRecord(metrics)})
        return _reply(message, content, partition, evaluate)

    return app


def stamp(message: Message, partition: int, identity: Mapping[str, str] = IDENTITY) -> int:
    """Return the receipt an honest site puts on its reply."""
    settings = message.content["config"]
    return receipt(settings["run"], settings["round"], partition, identity_digest(identity))


def unpack(message: Message) -> PromptState:
    """Return the arrays of a message, whatever their shapes."""
    record: ArrayRecord = message.content["arrays"]
    shapes = {name: tuple(array.shape) for name, array in record.items()}
    return from_array_record(record, shapes, dtype(message))


def dtype(message: Message) -> str:
    """Return the dtype of a message's arrays."""
    return str(next(iter(message.content["arrays"].values())).dtype)


def repack(reply: RecordDict, change: Callable[[PromptState], Changed]) -> RecordDict:
    """Return a reply with other arrays."""
    shapes = {name: tuple(array.shape) for name, array in reply["arrays"].items()}
    wire = str(next(iter(reply["arrays"].values())).dtype)
    arrays = change(from_array_record(reply["arrays"], shapes, wire))
    reply["arrays"] = to_array_record(arrays, wire)
    return reply


def sends(change: Callable[[PromptState], PromptState]) -> Spoil:
    """Return a spoiler that replaces a reply's arrays."""
    return lambda message, reply: repack(reply, change)


def unmoved(message: Message, reply: RecordDict) -> RecordDict:
    """Return the prompt as it came; an update, which did not come, stays as it is."""
    sent = unpack(message)
    return repack(reply, lambda arrays: {n: sent.get(n, a) for n, a in arrays.items()})


def says(**metrics: object) -> Spoil:
    """Return a spoiler that replaces metrics of a reply."""

    def spoil(_: Message, reply: RecordDict) -> RecordDict:
        reply["metrics"] = MetricRecord(dict(reply["metrics"]) | metrics)
        return reply

    return spoil


def counts(images: object) -> Spoil:
    """Return a spoiler that speaks for another number of images."""
    return says(**{"num-examples": images})


abstains = counts(0)


def shows(**identity: object) -> Spoil:
    """Return a spoiler of what a site shows of itself at the door."""

    def spoil(_: Message, reply: RecordDict) -> RecordDict:
        reply["identity"] = ConfigRecord(dict(reply["identity"]) | identity)
        return reply

    return spoil


def in_turn(*spoilers: Spoil) -> Spoil:
    """Return a spoiler that spoils several times."""

    def spoil(message: Message, reply: RecordDict) -> RecordDict:
        for each in spoilers:
            reply = each(message, reply)
        return reply

    return spoil


def _reply(
    message: Message, content: RecordDict, partition: int, spoilt: Mapping[int, Spoil] | None
) -> Message:
    spoil = (spoilt or {}).get(partition)
    return Message(spoil(message, content) if spoil else content, reply_to=message)
