import time
from collections.abc import Mapping

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MessageType, Metadata, RecordDict
from flwr.common.serde import message_to_proto

from client import app as module
from client import site as site_module
from client.app import app
from client.site import Site, simulated
from fedprompt.backbone.clip import FrozenClip
from fedprompt.data import load
from fedprompt.errors import ConfigError
from fedprompt.prompt_state import PromptState
from fedprompt.settings.run_config import RunConfig, defaults
from fedprompt.settings.section import Flat
from fedprompt.wire import (
    SHARED,
    WireError,
    from_array_record,
    identity_digest,
    receipt,
    to_array_record,
)
from tests.pictures import image_folder

SHAPES = {"ctx.A": (4, 1), "ctx.B": (1, 32)}
ASKED = {"run": "abc", "round": 1, "seed": 7, "mu": 0.0}


@pytest.fixture(autouse=True)
def loaded(clip: FrozenClip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site_module, "shared_backbone", lambda config: clip)
    for cached in (load.inspect, load._parts, module._known_site):
        cached.cache_clear()


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Flat:
    root = image_folder(tmp_path_factory.mktemp("images"), ("cat", "dog"), 12)
    own = {"data.source": str(root), "data.partitioner": "iid", "data.test_share": 0.0}
    own |= {"prompt.method": "dip-fixed"}  # A and B are trained and sent
    return {**defaults(), **own, "server.rounds": 3, "fit.batch": 4}


def send(
    settings: Flat, kind: str, content: RecordDict, partition: int = 0, partitions: int = 2
) -> Message:
    """Hand one message to the ClientApp as Flower does, and return its reply."""
    node = {"partition-id": partition, "num-partitions": partitions}
    context = Context(1, 1000 + partition, node, RecordDict(), settings)
    metadata = Metadata(
        run_id=1,
        message_id="f" * 64,
        src_node_id=1,
        dst_node_id=1000 + partition,
        reply_to_message_id="",
        group_id="",
        created_at=time.time(),
        ttl=60.0,
        message_type=kind,
    )
    message = Message(metadata=metadata, content=content)
    reply = app(message, context)
    message_to_proto(reply).SerializeToString()  # it can travel
    return reply


def asked(arrays: Mapping[str, np.ndarray], dtype: str = "float32", **config: object) -> RecordDict:
    return RecordDict(
        {
            "arrays": to_array_record(arrays, dtype),
            "config": ConfigRecord({**ASKED, **config}),
        }
    )


def start(**shapes: tuple[int, ...]) -> PromptState:
    rng, shapes = np.random.default_rng(0), {**SHAPES, **shapes}
    return PromptState({n: rng.normal(scale=0.02, size=s) for n, s in shapes.items()})


def identity(settings: Flat, partition: int = 0) -> ConfigRecord:
    query = RecordDict({"config": ConfigRecord(dict.fromkeys(SHARED, "?"))})
    reply = send(settings, MessageType.QUERY, query, partition)
    assert set(reply.content) == {"identity"}
    return reply.content.config_records["identity"]


def test_joining_shows_identity_and_enrolment(settings: Flat) -> None:
    card = identity(settings, partition=1)
    assert set(card) == {*SHARED, "partition", "num-examples"}
    site = simulated(RunConfig.parse(settings), 1, 2)
    assert {key: card[key] for key in SHARED} == site.identity
    assert card["partition"] == 1
    assert card["num-examples"] == max(len(site.train_labels), len(site.held_labels))


def test_of_dip_the_prompt_comes_and_one_row_goes(settings: Flat) -> None:
    settings = {**settings, "prompt.method": "dip"}
    sent = start(ctx=(4, 32))["ctx"]
    reply = send(settings, MessageType.TRAIN, asked({"ctx": sent})).content
    record = reply.array_records["arrays"]
    found = from_array_record(record, {"ctx.B": (1, 32)}, "float32")
    expected, _ = simulated(RunConfig.parse(settings), 0, 2).train(
        PromptState({"ctx": sent}), seed=7, server_round=1, rounds=3, mu=0.0
    )
    assert found["ctx.B"].tobytes() == expected["ctx.B"].tobytes()
    assert found["ctx.B"].any()
    assert send(settings, MessageType.EVALUATE, asked({"ctx": sent})).has_content()
    with pytest.raises(WireError, match=r"\['ctx'\] are missing"):  # another rule's prompt
        send(settings, MessageType.TRAIN, asked(start()))


@pytest.mark.parametrize("partition", [0, 1])
def test_train_replies_what_was_agreed_and_nothing_else(settings: Flat, partition: int) -> None:
    reply = send(settings, MessageType.TRAIN, asked(start()), partition).content
    assert set(reply) == {"arrays", "metrics"}
    metrics = reply.metric_records["metrics"]
    assert set(metrics) == {"num-examples", "receipt", "loss"}
    digest = identity_digest(identity(settings, partition))
    assert metrics["receipt"] == receipt("abc", 1, partition, digest)
    site = simulated(RunConfig.parse(settings), partition, 2)
    assert metrics["num-examples"] == len(site.train_labels)
    expected, loss = site.train(start(), seed=7, server_round=1, rounds=3, mu=0.0)
    found = from_array_record(reply.array_records["arrays"], SHAPES, "float32")
    assert all(found[name].tobytes() == expected[name].tobytes() for name in SHAPES)
    assert metrics["loss"] == loss
    assert not np.array_equal(found["ctx.B"], start()["ctx.B"])


def test_the_enrolled_size_covers_every_count(settings: Flat) -> None:
    """The gate caps a reply's count by it (F06)."""
    enrolled = identity(settings)["num-examples"]
    for kind in (MessageType.TRAIN, MessageType.EVALUATE):
        metrics = send(settings, kind, asked(start())).content.metric_records["metrics"]
        assert metrics["num-examples"] <= enrolled


def test_evaluate_replies_what_was_agreed_and_nothing_else(settings: Flat) -> None:
    reply = send(settings, MessageType.EVALUATE, asked(start(), round=0)).content
    assert set(reply) == {"metrics"}
    metrics = reply.metric_records["metrics"]
    assert set(metrics) == {"num-examples", "receipt", "correct", "loss"}
    score = simulated(RunConfig.parse(settings), 0, 2).evaluate(start())
    assert (metrics["num-examples"], metrics["correct"]) == (score.count, score.correct)
    assert metrics["loss"] == score.loss
    assert metrics["receipt"] == receipt("abc", 0, 0, identity_digest(identity(settings)))


@pytest.mark.parametrize("changed", [{"run": "abd"}, {"round": 2}])
def test_f11_a_receipt_is_bound_to_run_and_round(settings: Flat, changed: dict) -> None:
    found = [
        send(settings, MessageType.EVALUATE, asked(start(), **c)).content["metrics"]["receipt"]
        for c in ({}, changed)
    ]
    assert found[0] != found[1]


def test_the_seed_and_mu_of_the_server_are_used(settings: Flat) -> None:
    def trained(**config: object) -> bytes:
        reply = send(settings, MessageType.TRAIN, asked(start(), **config)).content
        return reply.array_records["arrays"]["ctx.B"].data

    assert trained() == trained()
    assert len({trained(), trained(seed=8), trained(mu=50.0), trained(round=2)}) == 4


def test_halves_are_answered_in_halves(settings: Flat) -> None:
    half = {**settings, "server.dtype": "float16"}
    reply = send(half, MessageType.TRAIN, asked(start(), "float16")).content
    record = reply.array_records["arrays"]
    assert {array.dtype for array in record.values()} == {"float16"}
    assert len(record["ctx.B"].data) == 64
    from_array_record(record, SHAPES, "float16")


def test_a_site_without_images_abstains(settings: Flat) -> None:
    few = {**settings, "data.partitioner": "dirichlet", "data.alpha": 0.001}
    counts = [
        send(few, MessageType.TRAIN, asked(start()), partition, 8).content["metrics"][
            "num-examples"
        ]
        for partition in range(8)
    ]
    assert sum(counts) > 0
    assert 0 in counts
    empty = send(few, MessageType.TRAIN, asked(start()), counts.index(0), 8).content
    assert set(empty) == {"arrays", "metrics"}
    assert empty.metric_records["metrics"]["loss"] == 0.0
    found = from_array_record(empty.array_records["arrays"], SHAPES, "float32")
    assert all(np.array_equal(found[name], array) for name, array in start().items())
    score = send(few, MessageType.EVALUATE, asked(start()), counts.index(0), 8).content
    assert score.metric_records["metrics"]["num-examples"] == 0


def test_a_site_of_smaller_rank_answers_at_its_own(settings: Flat) -> None:
    big = {"ctx.A": (4, 3), "ctx.B": (3, 32)}
    small = {**settings, "prompt.rank": 3, "fit.rank": 2}
    reply = send(small, MessageType.TRAIN, asked(start(**big))).content
    found = {n: tuple(a.shape) for n, a in reply.array_records["arrays"].items()}
    assert found == {"ctx.A": (4, 2), "ctx.B": (2, 32)}
    full = {**settings, "prompt.rank": 3}
    assert identity_digest(identity(small)) == identity_digest(identity(full))


@pytest.mark.parametrize(
    "arrays",
    [
        {"ctx.A": np.zeros((4, 1), np.float32)},
        {"ctx.A": np.zeros((4, 2), np.float32), "ctx.B": np.zeros((2, 32), np.float32)},
        {**start(), "ctx.B": np.full((1, 32), np.nan, np.float32)},
    ],
)
def test_arrays_that_do_not_fit_are_refused_by_the_site_too(settings: Flat, arrays: dict) -> None:
    for kind in (MessageType.TRAIN, MessageType.EVALUATE):
        with pytest.raises(WireError):
            send(settings, kind, asked(arrays))


def test_flowers_own_arrays_are_refused(settings: Flat) -> None:
    content = RecordDict({"arrays": ArrayRecord([np.zeros((4, 1))]), "config": ConfigRecord(ASKED)})
    with pytest.raises(WireError, match="are missing"):
        send(settings, MessageType.TRAIN, content)


@pytest.mark.parametrize("key", ["round", "seed", "mu"])
def test_a_message_without_a_number_is_refused_by_name(settings: Flat, key: str) -> None:
    content = asked(start())
    content["config"] = ConfigRecord({k: v for k, v in ASKED.items() if k != key})
    with pytest.raises(ConfigError, match=f"{key} = None, expected an? (number|integer)"):
        send(settings, MessageType.TRAIN, content)


def test_one_process_builds_a_site_once(settings: Flat, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[int] = []

    def counted(config: RunConfig, partition: int, partitions: int) -> Site:
        built.append(partition)
        return simulated(config, partition, partitions)

    monkeypatch.setattr(module, "simulated", counted)
    for _ in range(2):
        for partition in (0, 1):
            send(settings, MessageType.EVALUATE, asked(start()), partition)
    assert built == [0, 1]
