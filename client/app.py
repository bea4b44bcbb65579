"""The Flower ClientApp: unpack a message, ask the site, pack its answer. No maths here.

A deployed site's messages pass its policy and its egress log first and last.
"""

import functools
from pathlib import Path

import torch
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from client.deployment.egress_filter import folder_of, policy_mod
from client.deployment.policy import Policy
from client.deployment.site_folder import SiteFolder
from client.reply.secure_aggregation import secured
from client.site import Site, deployed, simulated
from fedprompt.errors import ConfigError
from fedprompt.identity import sha256_file
from fedprompt.prompt_state import PromptState
from fedprompt.settings.run_config import RunConfig
from fedprompt.settings.section import Scalar
from fedprompt.wire import (
    ARRAYS,
    CONFIG,
    IDENTITY,
    METRICS,
    from_array_record,
    receipt,
    to_array_record,
)

app = ClientApp(mods=[policy_mod])


@app.query()
def join(message: Message, context: Context) -> Message:
    """Say who this site is, and how many images it may speak for."""
    site = _site(context)
    card = ConfigRecord({**site.identity, "partition": site.number})
    card["num-examples"] = max(len(site.train_labels), len(site.held_labels))
    if site.domain:
        card["domain"] = site.domain
    return Message(RecordDict({IDENTITY: card}), reply_to=message)


@app.query("centres")
def centres(message: Message, context: Context) -> Message:
    """Say around which noised centres this site's patch tokens lie, before the first round."""
    run = context.run_config
    agreed = run.get("prompt.method") == "spt" and run.get("prompt.start_noise")
    if not agreed or run.get("server.secure_aggregation"):
        raise ConfigError(
            "the server asks for centres of patch tokens, though the run is none of spt with "
            "prompt.start_noise, or has secure aggregation; nothing was sent"
        )
    site, config = _site(context), message.content.config_records[CONFIG]
    stamp, examples = _receipt(site, config), len(site.train_labels)
    arrays = to_array_record(site.centres(_secret(context, site)), _dtype(context))
    metrics = MetricRecord({"num-examples": examples, "receipt": stamp})
    return Message(RecordDict({ARRAYS: arrays, METRICS: metrics}), reply_to=message)


@app.train(mods=[secured])
def train(message: Message, context: Context) -> Message:
    """Tune the prompt on this site's images; only the trained tensors leave."""
    site, config = _site(context), message.content.config_records[CONFIG]
    dtype = _dtype(context)
    start = _arrays(message, site, dtype)
    arrays, loss = site.train(
        start,
        seed=_integer(config, "seed"),
        server_round=_integer(config, "round"),
        rounds=int(context.run_config["server.rounds"]),
        mu=_number(config, "mu"),
        run=str(config["run"]),
    )
    start, frozen = start.unmoved(arrays), site.prompt.frozen_arrays()
    arrays = arrays.clip(start, _largest_norm(context), frozen, dtype)
    examples = len(site.train_labels) if arrays else 0  # what keeps its prompt to itself abstains
    content = trained(arrays, dtype, examples, loss, _receipt(site, config))
    return Message(content, reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Score the prompt on this site's held-out images."""
    site, config = _site(context), message.content.config_records[CONFIG]
    arrays = _arrays(message, site, _dtype(context))
    score = site.evaluate(arrays, _integer(config, "round"), str(config["run"]))
    metrics = MetricRecord({"num-examples": score.count, "correct": score.correct})
    metrics["loss"], metrics["receipt"] = score.loss, _receipt(site, config)
    return Message(RecordDict({METRICS: metrics}), reply_to=message)


def trained(arrays: PromptState, dtype: str, examples: int, loss: float, stamp: int) -> RecordDict:
    """Return what a site sends after training; nothing else leaves it."""
    metrics = MetricRecord({"num-examples": examples, "loss": loss, "receipt": stamp})
    return RecordDict({ARRAYS: to_array_record(arrays, dtype), METRICS: metrics})


def _site(context: Context) -> Site:
    """Return the site of a context, kept in memory between messages.

    A deployed site's node settings name its folder; a simulated one's name its share.
    """
    node, folder = context.node_config, folder_of(context)
    config = _run_config(tuple(sorted(context.run_config.items())), folder)
    torch.set_num_threads(config.fit.threads)
    if folder:
        return _own_site(config, folder.node().number, folder.local)
    return _known_site(config, int(node["partition-id"]), int(node["num-partitions"]))


def _run_config(settings: tuple[tuple[str, Scalar], ...], folder: SiteFolder | None) -> RunConfig:
    """Return the run's configuration, with this site's own settings where it has the say."""
    return RunConfig.parse(folder.settings(dict(settings))) if folder else _simulated(settings)


@functools.lru_cache(maxsize=4)  # all sites of a simulation have one
def _simulated(settings: tuple[tuple[str, Scalar], ...]) -> RunConfig:
    return RunConfig.parse(dict(settings))


@functools.lru_cache(maxsize=4096)
def _known_site(config: RunConfig, number: int, partitions: int) -> Site:
    return simulated(config, number, partitions)


def forget_sites() -> None:
    """Let go of the simulated sites that this process holds, with their images' features."""
    _known_site.cache_clear()


@functools.lru_cache(maxsize=2)  # a server that changes its settings each time fills no memory
def _own_site(config: RunConfig, number: int, folder: Path) -> Site:
    return deployed(config, number, folder)


def _secret(context: Context, site: Site) -> bytes:
    """Return what seeds a site's noise: of its key, or in a simulation its number."""
    folder = folder_of(context)
    return sha256_file(folder.key).encode() if folder else str(site.number).encode()


def _largest_norm(context: Context) -> float:
    """Return the largest norm of an update that may leave; 0 = any."""
    folder = folder_of(context)
    return Policy.read(folder.policy).max_norm if folder else 0.0


def _arrays(message: Message, site: Site, dtype: str) -> PromptState:
    record = message.content.array_records[ARRAYS]
    return from_array_record(record, site.prompt.arrays().shapes(), dtype)


def _receipt(site: Site, config: ConfigRecord) -> int:
    server_round = _integer(config, "round")
    return receipt(str(config["run"]), server_round, site.number, site.digest)


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
