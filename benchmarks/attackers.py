"""Hostile sites as real ClientApps: each answers like ours, but for the arrays it sends.

An attacker lets the honest ClientApp answer, so that receipt, count and loss are right, and puts
other arrays in. The strongest ones know every honest update of the round: those are noted as they
are made, and the hostile sites are asked last. All compute in the dense space and send the nearest
factors, because the dense space is where the server merges.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from PIL import Image

from client.app import app as honest_client
from client.features.encode import image_features, store_key
from client.features.feature_store import FeatureStore
from client.site import Site, simulated
from fedprompt.backbone.encoded import EncodedImages
from fedprompt.data.decode import decode
from fedprompt.data.image_set import ImageSet, Source
from fedprompt.data.load import share
from fedprompt.prompt_state import PromptState
from fedprompt.settings.run_config import RunConfig
from fedprompt.settings.section import Flat
from fedprompt.wire import from_array_record, to_array_record
from server.merge.rules import RULES, Dense

SITES, HOSTILE = 10, 2  # the hostile ones are the last
TARGET = 1  # of the backdoor: trouser
PATCH = 6  # pixels: side of the white square in a corner that is the trigger
BOOST = SITES / HOSTILE  # model replacement: what the plain mean divides by (arXiv 1807.00459)
RULE = RULES["product"]

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class View:
    """Hold what an attacker computes with; a step is the difference to what was sent."""

    own: Vector  # its own honest step, dense and flat
    honest: npt.NDArray[np.float64]  # those of the honest sites, one a row
    random: np.random.Generator


def sign_flip(view: View) -> Vector:
    """Go the other way, ten times as far."""
    return -10 * view.own


def gaussian(view: View) -> Vector:
    """Go anywhere, ten times as far as an honest site."""
    noise = view.random.normal(size=view.own.shape)
    return 10 * noise * np.median(np.linalg.norm(view.honest, axis=1)) / np.linalg.norm(noise)


def little_is_enough(view: View) -> Vector:
    """Stay 1.5 deviations below the honest mean of each number (ALIE, arXiv 1902.06156)."""
    return view.honest.mean(0) - 1.5 * view.honest.std(0)


def inner_product(view: View) -> Vector:
    """Turn the mean around, ten times as far (inner-product manipulation, arXiv 1903.03936)."""
    return -10 * view.honest.mean(0)


def small_inner_product(view: View) -> Vector:
    """Do the same in the size of an honest step."""
    return -view.honest.mean(0)


STEPS: dict[str, Callable[[View], Vector]] = {
    "sign flip": sign_flip,
    "Gaussian": gaussian,
    "ALIE": little_is_enough,
    "inner product": inner_product,
    "small inner product": small_inner_product,
}
FALSE_LABELS = ("label flip", "backdoor")
ATTACKS = (*STEPS, *FALSE_LABELS)


@dataclass(frozen=True)
class Stamped:
    """Put the trigger on every image of a source."""

    source: Source

    def content(self, index: int) -> bytes:
        """Return a PNG of the image with a white square in its lower right corner."""
        pixels = decode(self.source.content(index))
        pixels[-PATCH:, -PATCH:] = 255
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        return buffer.getvalue()

    def name(self, index: int) -> str:
        """Return the image's own name."""
        return self.source.name(index)


def triggered(images: ImageSet) -> ImageSet:
    """Return the same images with the trigger on them."""
    return ImageSet(images.classes, images.labels, Stamped(images.source), images.rows)


def hostile_client(attack: str) -> ClientApp:
    """Return our ClientApp, its last sites hostile; "clean" has none."""
    app, noted = ClientApp(), dict[int, dict[int, Vector]]()  # honest steps by round and site

    @app.query()
    def query(message: Message, context: Context) -> Message:
        return honest_client(message, context)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        return honest_client(message, context)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        reply = honest_client(message, context)
        site = int(context.node_config["partition-id"])
        sent, own = unpack(message), unpack(reply)
        if attack == "clean" or site < SITES - HOSTILE:
            server_round = int(message.content["config"]["round"])
            noted.setdefault(server_round, {})[site] = flat(own) - flat(sent)
            return reply
        if attack in FALSE_LABELS:
            step = poisoned_step(attack, message, context)
        else:
            step = chosen_step(attack, message, site, flat(own) - flat(sent), noted)
        return send(reply, sent, step)

    return app


def chosen_step(
    attack: str, message: Message, site: int, own: Vector, noted: dict[int, dict[int, Vector]]
) -> Vector:
    """Return the step an attacker computes from all honest ones, no two attackers' the same."""
    config = message.content["config"]
    random = np.random.default_rng([config["seed"], config["round"], site])
    honest = noted[config["round"]]
    step = STEPS[attack](View(own, np.stack([honest[i] for i in sorted(honest)]), random))
    return step * (1 + 1e-4 * random.normal(size=step.shape))  # else the gate counts them once


def poisoned_step(attack: str, message: Message, context: Context) -> Vector:
    """Return the step of a site that trains on false labels; a backdoor's is boosted."""
    site = poisoned_site(attack, tuple(sorted(context.run_config.items())), **_place(context))
    sent, config = unpack(message), message.content["config"]
    arrays, _ = site.train(
        sent,
        seed=int(config["seed"]),
        server_round=int(config["round"]),
        rounds=int(context.run_config["server.rounds"]),
        mu=float(config["mu"]),
    )
    return (BOOST if attack == "backdoor" else 1) * (flat(arrays) - flat(sent))


@cache
def poisoned_site(
    attack: str, settings: tuple[tuple[str, object], ...], partition: int, partitions: int
) -> Site:
    """Return a site that learns what is false: classes turned round, or the trigger's."""
    chosen: Flat = dict(settings)
    site = simulated(RunConfig.parse(chosen), partition, partitions)
    if attack == "label flip":
        site.train_labels = len(site.classes) - 1 - site.train_labels
        return site
    images = triggered(share(site.data, partition, partitions).train)
    store = FeatureStore(store_key(site.clip))
    features = image_features(images, site.clip, store, site.config.encode_batch)
    site.train_images = EncodedImages(torch.cat([site.train_images.features, features]))
    false = torch.full_like(site.train_labels, TARGET)
    site.train_labels = torch.cat([site.train_labels, false])
    return site


def unpack(message: Message) -> PromptState:
    """Return the arrays of a message."""
    record = message.content["arrays"]
    shapes = {name: tuple(array.shape) for name, array in record.items()}
    return from_array_record(record, shapes, str(next(iter(record.values())).dtype))


def flat(arrays: PromptState) -> Vector:
    """Return the dense arrays as one vector, as the server merges them."""
    return np.concatenate([array.ravel() for array in RULE.lift(arrays).values()])


def send(reply: Message, sent: PromptState, step: Vector) -> Message:
    """Put the factors nearest to ``sent`` plus a step into a reply."""
    dense, start = Dense(), 0
    for name, array in RULE.lift(sent).items():
        dense[name] = array + step[start : start + array.size].reshape(array.shape)
        start += array.size
    arrays = RULE.project(dense, sent).arrays
    content = RecordDict(dict(reply.content.items()))
    content["arrays"] = to_array_record(arrays, "float32")
    reply.content = content
    return reply


def _place(context: Context) -> dict[str, int]:
    node = context.node_config
    return {
        "partition": int(node["partition-id"]),
        "partitions": int(node["num-partitions"]),
    }
