"""The Flower ClientApp: unpack a message, ask the site, pack its answer. No maths here."""

import functools

import torch
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from client.site import Site
from fedprompt.config import Scalar
from fedprompt.errors import ConfigError
from fedprompt.wire import (
    ARRAYS,
    CONFIG,
    IDENTITY,
    METRICS,
    Arrays,
    from_array_record,
    receipt,
    to_array_record,
)

app = ClientApp()


@app.query()
def join(message: Message, context: Context) -> Message:
    """Say who this site is, and how many images it may speak for."""
    site = _site(context)
    card = ConfigRecord(
        {
            **site.identity,
            "partition": site.partition,
            "num-examples": max(len(site.train_labels), len(site.held_labels)),
        }
    )
    return Message(RecordDict({IDENTITY: card}), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Tune the prompt on this site's images; only the trained tensors leave."""
    site, config = _site(context), message.content.config_records[CONFIG]
    dtype = _dtype(context)
    arrays, loss = site.train(
        _arrays(message, site, dtype),
        seed=_integer(config, "seed"),
        server_round=_integer(config, "round"),
        rounds=int(context.run_config["server.rounds"]),
        mu=_number(config, "mu"),
    )
    content = trained(arrays, dtype, len(site.train_labels), loss, _receipt(site, config))
    return Message(content, reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Score the prompt on this site's held-out images."""
    site, config = _site(context), message.content.config_records[CONFIG]
    score = site.evaluate(_arrays(message, site, _dtype(context)))
    metrics = MetricRecord({"num-examples": score.count, "correct": score.correct})
    metrics["loss"], metrics["receipt"] = score.loss, _receipt(site, config)
    return Message(RecordDict({METRICS: metrics}), reply_to=message)


def trained(arrays: Arrays, dtype: str, examples: int, loss: float, stamp: int) -> RecordDict:
    """Return what a site sends after training; nothing else leaves it."""
    metrics = MetricRecord({"num-examples": examples, "loss": loss, "receipt": stamp})
    return RecordDict({ARRAYS: to_array_record(arrays, dtype), METRICS: metrics})


def _site(context: Context) -> Site:
    settings = {key: context.run_config[key] for key in sorted(context.run_config)}
    node = context.node_config
    torch.set_num_threads(int(settings.get("fit.threads", 1)))
    return _known_site(
        tuple(settings.items()), int(node["partition-id"]), int(node["num-partitions"])
    )


@functools.lru_cache(maxsize=4096)
def _known_site(settings: tuple[tuple[str, Scalar], ...], partition: int, partitions: int) -> Site:
    return Site(dict(settings), partition, partitions)


def _arrays(message: Message, site: Site, dtype: str) -> Arrays:
    record = message.content.array_records[ARRAYS]
    shapes = {name: array.shape for name, array in site.prompt.arrays().items()}
    return from_array_record(record, shapes, dtype)


def _receipt(site: Site, config: ConfigRecord) -> int:
    server_round = _integer(config, "round")
    return receipt(str(config["run"]), server_round, site.partition, site.digest)


def _integer(config: ConfigRecord, key: str) -> int:
    value = config.get(key)
    if not isinstance(value, int):
        raise ConfigError(f"the server's message has {key} = {value!r}, expected an integer")
    return value


def _number(config: ConfigRecord, key: str) -> float:
    value = config.get(key)
    if not isinstance(value, int | float):
        raise ConfigError(f"the server's message has {key} = {value!r}, expected a number")
    return float(value)


def _dtype(context: Context) -> str:
    return str(context.run_config["server.dtype"])
