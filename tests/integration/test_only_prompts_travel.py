"""What leaves a site in a whole run: prompts and a few numbers; and CLIP stays as it was."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Context, RecordDict
from flwr.common.serde import message_from_proto
from flwr.proto.message_pb2 import Message

from client.app import app as client
from client.site import simulated
from fedprompt.backbone import load as backbones
from fedprompt.backbone.load import shared_backbone
from fedprompt.data.decode import decode
from fedprompt.data.load import share
from fedprompt.identity import sha256_arrays
from fedprompt.settings.backbone import BackboneConfig
from fedprompt.settings.data import DataConfig
from fedprompt.settings.run_config import RunConfig, defaults
from fedprompt.settings.section import Flat
from server.app import app as server
from server.rounds.local_grid import LocalGrid
from tests.pictures import image_folder

SITES, ROUNDS = 3, 2
FRAMING = 700  # bytes of names, receipt, metrics and Flower's envelope around the arrays
IDENTITY = 2500  # bytes of the query: hashes, class names and the method, once a run
WINDOW = 24  # bytes in a row that no message may share with an image or a feature


@dataclass
class Wire:
    """Hold every message of a run as it was on the wire."""

    settings: Flat
    down: list[bytes] = field(default_factory=list)
    up: list[bytes] = field(default_factory=list)
    before: str = ""
    after: str = ""


def weights() -> str:
    clip = shared_backbone(BackboneConfig(name="embedded-cnn"))
    return sha256_arrays({n: t.cpu().numpy() for n, t in clip.model.state_dict().items()})


@pytest.fixture(scope="module", params=["dip", "dip-fixed"])
def wire(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Wire:
    root = tmp_path_factory.mktemp("travel")
    own = {
        "backbone.name": "embedded-cnn",
        "data.source": str(image_folder(root / "photos", ("blue", "green", "red"), 12)),
        "data.clients": SITES,
        "data.partitioner": "iid",
        "prompt.method": request.param,
        "prompt.rank": 2,
        "server.rounds": ROUNDS,
        "server.output": str(root / "run"),
    }
    told = Wire(defaults() | own)

    class Tapped(LocalGrid):
        def _deliver(self, data: bytes, expiry: float) -> bytes:
            told.down.append(data)
            told.up.append(super()._deliver(data, expiry))
            return told.up[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDPROMPT_CACHE", str(root / "cache"))
        backbones._kept_backbone.cache_clear()
        told.before = weights()
        with Tapped(client, SITES, told.settings, workers=1) as grid:
            server(grid=grid, context=Context(1, 0, {}, RecordDict(), told.settings))
        told.after = weights()
        yield told


def arrays_of(data: bytes) -> dict[str, bytes]:
    content = message_from_proto(Message.FromString(data)).content
    return {n: a.data for record in content.array_records.values() for n, a in record.items()}


def kind_of(data: bytes) -> str:
    return message_from_proto(Message.FromString(data)).metadata.message_type


def test_every_message_is_a_known_kind(wire: Wire) -> None:
    kinds = [kind_of(data) for data in wire.up]
    assert kinds.count("query") == SITES
    assert kinds.count("train") == SITES * ROUNDS
    assert kinds.count("evaluate") == SITES * (ROUNDS + 1)
    assert len(kinds) == len(wire.down) == SITES * (2 * ROUNDS + 2)


def test_no_message_is_larger_than_the_prompt_and_its_frame(wire: Wire) -> None:
    width = shared_backbone(BackboneConfig(name="embedded-cnn")).text.width
    a, b = 4 * 2, 2 * width  # numbers of rank 2, four tokens
    up, down = {"ctx.A": 4 * a, "ctx.B": 4 * b}, {"ctx.A": 4 * a, "ctx.B": 4 * b}
    if wire.settings["prompt.method"] == "dip":
        up, down = {"ctx.B": 4 * b}, {"ctx": 4 * 4 * width}
    for messages, expected in ((wire.up, up), (wire.down, down)):
        for data in messages:
            found = {name: len(array) for name, array in arrays_of(data).items()}
            assert found in ({}, expected)
            frame = IDENTITY if kind_of(data) == "query" else FRAMING
            assert len(data) <= sum(found.values()) + frame


def test_only_training_sends_arrays_up(wire: Wire) -> None:
    for data in wire.up:
        assert bool(arrays_of(data)) == (kind_of(data) == "train")


def windows(data: bytes) -> set[bytes]:
    return {data[i : i + WINDOW] for i in range(len(data) - WINDOW + 1)}


def test_no_byte_of_an_image_or_a_feature_travels(wire: Wire) -> None:
    """Compare every run of 24 bytes of every message with files, pixels and features."""
    sent = set().union(*(windows(data) for data in wire.up))
    config = DataConfig(source=str(wire.settings["data.source"]), clients=SITES, partitioner="iid")
    secrets: list[bytes] = []
    for partition in range(SITES):
        images = share(config, partition, SITES)
        for part in (images.train, images.holdout):
            files = [part.content(i) for i in range(len(part))]
            secrets += [content[100:] for content in files]  # past the header all PNGs share
            secrets += [decode(content).tobytes() for content in files]
        own = simulated(RunConfig.parse(wire.settings), partition, SITES)
        for encoded in (own.train_images, own.held_images):
            for kind in (np.float32, np.float16, np.float64):
                rows = encoded.features.cpu().numpy()
                secrets += [row.astype(kind).tobytes() for row in rows]
    assert len(secrets) > 36
    for secret in secrets:
        pieces = {secret[i : i + WINDOW] for i in range(0, len(secret) - WINDOW + 1)}
        assert not pieces & sent


def test_no_file_name_travels(wire: Wire) -> None:
    for data in wire.up:
        assert b".png" not in data
        assert str(Path(str(wire.settings["data.source"]))).encode() not in data


def test_the_backbone_is_unchanged_to_the_byte(wire: Wire) -> None:
    assert wire.before == wire.after
    shared = shared_backbone(BackboneConfig(name="embedded-cnn"))
    assert not any(tensor.requires_grad for tensor in shared.model.parameters())
