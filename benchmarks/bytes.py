"""Bytes a client sends and receives in a round: ``python -m benchmarks.bytes [--json]``.

The messages are the product's own: planned by ``server.training``, answered by ``client.app``,
with ids as long as a deployment's (64-bit nodes and run, SHA-256 message ids). A size is that of
the serialised Flower ``Message`` with all its framing, unless a row says "object store": then the
same message is cut into the objects that Flower's deployment uploads, each with its header. TLS
and HTTP are not counted. Prompts, CoOp and FedTPG are packed and serialised whole; whole-model
FedAvg is arithmetic: 4 bytes a parameter plus the measured framing of its named, empty arrays.
"""

import logging
from collections.abc import Mapping

import numpy as np
import open_clip
import torch
from flwr.app import Array, ArrayRecord, Message
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

from benchmarks.console import run, show
from client.app import app
from fedprompt.backbone.clip import FrozenClip
from fedprompt.data.preprocess import Preprocessing
from fedprompt.experiments.reply_size import (
    NODE,
    RUN_DIGEST,
    addressed,
    answered,
    identify,
    serialised,
)
from fedprompt.prompt_state import PromptState
from fedprompt.prompts.build import build_prompt
from fedprompt.prompts.methods import own_rule, prompt_config
from fedprompt.settings.server import ServerConfig
from fedprompt.wire import ARRAYS, RAW, to_array_record
from server.merge.rules import RULES
from server.merge.strategies import STRATEGIES
from server.rounds.local_grid import LocalGrid
from server.rounds.strategy_adapter import Instruction, plan

BACKBONE = "ViT-B-16"
FEDTPG_PARAMETERS = 4_208_000  # as published; see docs and the papers' table


def travelling(method: str) -> tuple[PromptState, PromptState]:
    """Return what the server sends of a prompt on ViT-B/16, and what a site returns.

    The towers have one random layer each.
    """
    settings = open_clip.get_model_config(BACKBONE)
    settings["vision_cfg"] |= {"layers": 1, "width": 64}
    settings["text_cfg"] |= {"layers": 1}
    model = open_clip.CLIP(**settings).eval()
    clip = FrozenClip(model, open_clip.get_tokenizer(BACKBONE), Preprocessing())
    config, rule = prompt_config(method=method), own_rule(method)
    prompt = build_prompt(config, clip, ("cat", "dog"), "a photo of a {}.", rule=rule)
    return prompt.arrays(), prompt.leaving()


def asked(arrays: PromptState, dtype: str) -> Message:
    """Return the server's train message to one site."""
    config, rule = ServerConfig(), RULES["factors"]
    strategy, task = STRATEGIES["fedavg"](config), Instruction(RUN_DIGEST, 10, 0, 10)
    with LocalGrid(app, 0, {}) as grid:
        wire = {NODE: to_array_record(arrays, dtype)}
        contents = plan(strategy, grid, rule.lift(arrays), wire, task)
    identify(server=True)
    return addressed(Message(contents[NODE], NODE, "train", ttl=config.deadline))


def as_objects(message: Message) -> int:
    """Return the bytes of the objects that Flower's deployment moves instead."""
    return sum(len(part.deflate()) for part in get_all_nested_objects(message).values())


def whole_model() -> int:
    """Return the bytes of a reply with every parameter of the backbone, by arithmetic."""
    with torch.device("meta"):
        model = open_clip.CLIP(**open_clip.get_model_config(BACKBONE))
    shapes = {name: tuple(tensor.shape) for name, tensor in model.named_parameters()}
    empty = {name: Array("float32", shape, RAW, b"") for name, shape in shapes.items()}
    reply = answered(asked({}, "float32"), {}, "float32")
    reply.content[ARRAYS] = ArrayRecord(empty)
    parameters = sum(tensor.numel() for tensor in model.parameters())
    return int(serialised(reply) + 4 * parameters)


def ours(arrays: PromptState, reply: PromptState) -> dict[str, int]:
    """Measure a prompt, both ways and in both dtypes; its parameters are those of a reply."""
    figures = {"parameters": sum(array.size for array in reply.values())}
    for dtype, ending in (("float32", ""), ("float16", "_fp16")):
        down = asked(arrays, dtype)
        up = answered(down, reply, dtype)
        figures |= {f"bytes_up{ending}": serialised(up), f"bytes_down{ending}": serialised(down)}
        figures |= {f"object_store_bytes_up{ending}": as_objects(up)}
        figures |= {f"object_store_bytes_down{ending}": as_objects(down)}
    return figures


def peers(width: int) -> dict[str, int]:
    """Return the bytes up of other methods in float32, through the same code."""
    shapes = {"full_coop": (16, width), "fedtpg": (FEDTPG_PARAMETERS,)}
    found = {}
    for name, shape in shapes.items():
        arrays = {"ctx.matrix": np.zeros(shape, np.float32)}
        found[name] = serialised(answered(asked(arrays, "float32"), arrays, "float32"))
    return found | {"whole_model": whole_model()}


def table(figures: Mapping[str, int]) -> None:
    """Print all sizes, and how many times the default's each peer sends."""
    keys = [key for key in figures if "bytes" in key]
    base = figures["bytes_up"]
    rows = [(key, figures[key], figures[key] / base) for key in keys]
    title = f"Bytes of one client and round: dip, {figures['parameters']} parameters, {BACKBONE}"
    show(title, ("what", "bytes", "times bytes_up"), rows)


def measure() -> dict[str, int]:
    """Measure ours and the peers."""
    logging.getLogger("flwr").setLevel(logging.WARNING)
    figures = ours(*travelling("dip"))
    published, reply = travelling("dip-fixed")
    figures |= {f"dip_fixed_{key}": size for key, size in ours(published, reply).items()}
    width = reply["ctx.B"].shape[1]
    figures |= {f"{name}_bytes_up": size for name, size in peers(width).items()}
    table(figures)
    return figures


if __name__ == "__main__":
    run(measure)
