"""A site's policy against servers that want more: real ClientApp calls of a deployed site."""

import json
import logging
import os
import time
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from flwr.common.serde import message_to_proto

from client import app as module
from client import site as site_module
from client.deployment import egress_filter, egress_log
from client.deployment.egress_log import EgressLog
from client.deployment.site_folder import SiteFolder
from fedprompt.backbone.clip import FrozenClip
from fedprompt.basis import columns
from fedprompt.data import load
from fedprompt.errors import StorageError
from fedprompt.identity import sha256_bytes
from fedprompt.settings.run_config import RunConfig, defaults
from fedprompt.settings.section import Flat
from fedprompt.wire import SHARED, from_array_record, receipt, to_array_record
from tests import enrolled
from tests.enrolled import SERVER, invitation, rule, send, site
from tests.pictures import image_folder

CLASSES = ("cat", "dog")
SHAPES = {"ctx.A": (4, 1), "ctx.B": (1, 32)}
SECRET = "ward-7-smith"  # a name that must not leave


@pytest.fixture(autouse=True)
def loaded(
    clip: FrozenClip, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setenv("FEDPROMPT_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr(site_module, "shared_backbone", lambda config: clip)
    for cached in (load.inspect, load._parts, module._known_site, module._own_site):
        cached.cache_clear()


@pytest.fixture
def folder(clip: FrozenClip, tmp_path: Path) -> SiteFolder:
    photos = image_folder(tmp_path / SECRET, CLASSES, 10)
    for picture in photos.rglob("*.png"):
        picture.rename(picture.with_name(f"{SECRET}-{picture.name}"))
    return site(tmp_path / "site", photos, invitation(CLASSES, clip))


@pytest.fixture
def settings() -> Flat:
    return {**defaults(), "server.rule": "product", "server.rounds": 3, "fit.batch": 4}


def start() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {n: rng.normal(scale=0.02, size=s).astype(np.float32) for n, s in SHAPES.items()}


def asked(**config: object) -> RecordDict:
    told = {"run": "abc", "round": 1, "seed": 7, "mu": 0.0, "sites": 5, **config}
    return RecordDict({"arrays": to_array_record(start(), "float32"), "config": ConfigRecord(told)})


def query() -> RecordDict:
    return RecordDict({"config": ConfigRecord(dict.fromkeys(SHARED, "?"))})


def train(folder: SiteFolder, settings: Flat, **config: object) -> Message:
    return send(folder, "train", asked(**config), settings)


def evaluate(folder: SiteFolder, settings: Flat) -> Message:
    return send(folder, "evaluate", asked(), settings)


def metrics(reply: Message) -> MetricRecord:
    return reply.content.metric_records["metrics"]


def refused(reply: Message) -> str:
    assert reply.has_error()
    assert not reply.has_content()
    return str(reply.error.reason)


def log(folder: SiteFolder) -> list[dict]:
    lines, faults = EgressLog(folder.egress).verify()
    assert faults == []
    return [dict(line.entry) for line in lines]


def test_a_site_that_allows_everything_answers_as_in_a_simulation(
    folder: SiteFolder, settings: Flat
) -> None:
    card = send(folder, "query", query(), settings).content.config_records["identity"]
    assert set(card) == {*SHARED, "partition", "num-examples"}
    assert card["partition"] == 3
    assert json.loads(card["classes"]) == list(CLASSES)
    found = metrics(train(folder, settings))
    assert set(found) == {"num-examples", "loss", "receipt"}
    assert found["num-examples"] == 16
    scored = metrics(evaluate(folder, settings))
    assert scored["num-examples"] == 4
    assert 0 <= scored["correct"] <= 4


@pytest.mark.parametrize("allowed", ["6", "0"])
def test_an_answer_does_not_tell_when_it_was_made(
    folder: SiteFolder, settings: Flat, allowed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its date and what is left of its life would give away how long the site has worked."""
    rule(folder, "max_epochs", allowed)
    question = enrolled.message("train", asked())
    monkeypatch.setattr(enrolled, "message", lambda *_: question)
    time.sleep(0.01)
    reply = train(folder, {**settings, "fit.epochs": 5})
    assert reply.has_error() == (allowed == "0")
    assert reply.metadata.created_at == question.metadata.created_at
    assert reply.metadata.ttl == question.metadata.ttl


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("min_sites", "9", "min_sites: 9 at least, the server names 5"),
        ("servers", '["elsewhere.example.org:9092"]', "servers:"),
        ("methods", '["coop"]', "methods: 'dip' is asked for"),
        ("max_epochs", "0", "policy"),
        ("max_message", "200", "max_message: the answer has"),
        ("max_day", "200", "max_day:"),
        ("metrics", '["loss"]', "metrics: num-examples may not leave"),
        ("secure_aggregation_only", "true", "secure_aggregation_only: this site takes part under"),
    ],
)
def test_a_rule_forbids_and_is_named(
    folder: SiteFolder, settings: Flat, key: str, value: str, told: str
) -> None:
    assert not train(folder, settings).has_error()
    rule(folder, key, value)
    reason = refused(train(folder, settings))
    if told == "policy":  # a value that no policy can have: nothing leaves before it is mended
        assert reason == "ConfigError; see the site's own log"
    else:
        assert told in reason
    assert "error" in log(folder)[-1]


def test_a_policy_that_is_broken_or_gone_lets_nothing_out(
    folder: SiteFolder, settings: Flat
) -> None:
    for spoil in (lambda: folder.policy.write_text("nonsense"), folder.policy.unlink):
        spoil()
        for kind, content in (("train", asked()), ("evaluate", asked()), ("query", query())):
            assert refused(send(folder, kind, content, settings)).startswith("ConfigError;")


def test_a_plain_request_in_a_masked_run_is_refused_before_anything_is_computed(
    folder: SiteFolder, settings: Flat, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule(folder, "secure_aggregation_only", "true")
    monkeypatch.setattr(egress_filter.EgressFilter, "answer", _with(_forbidden))
    told = {**settings, "server.secure_aggregation": True}
    assert "wants this update in the clear" in refused(train(folder, told))


def test_a_plain_answer_to_a_masked_request_does_not_leave(
    folder: SiteFolder, settings: Flat, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request looks right; the app, by a fault of its own, sends what can be read."""
    content = asked()
    content["secaggplus_configs"] = ConfigRecord({"stage": "setup"})

    def plain(message: Message, context: object) -> Message:
        told = MetricRecord({"num-examples": 1, "loss": 0.5, "receipt": 1})
        answer = RecordDict({"arrays": to_array_record(start(), "float32"), "metrics": told})
        return Message(answer, reply_to=message)

    monkeypatch.setattr(egress_filter.EgressFilter, "answer", _with(plain))
    told = {**settings, "server.secure_aggregation": True}
    assert not send(folder, "train", content, told).has_error()  # without the rule it passes
    rule(folder, "secure_aggregation_only", "true")
    assert "wants this update in the clear" in refused(send(folder, "train", content, told))
    assert log(folder)[-1]["arrays"] == []


@pytest.mark.parametrize("sites", [None, 1, True, "5"])
def test_a_server_that_does_not_tell_its_crowd_gets_no_update(
    folder: SiteFolder, settings: Flat, sites: object
) -> None:
    content = asked()
    told = {k: v for k, v in content["config"].items() if k != "sites"}
    content["config"] = ConfigRecord(told if sites is None else {**told, "sites": sites})
    assert "min_sites" in refused(send(folder, "train", content, settings))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_an_update_on_a_fresh_basis_is_shortened_to_the_allowed_norm(
    folder: SiteFolder, settings: Flat, dtype: str
) -> None:
    """What leaves is as long as what it moves the dense prompt by."""
    told = {**settings, "server.rule": "", "server.dtype": dtype, "fit.learning_rate": 0.5}
    content = asked()
    sent = np.random.default_rng(0).normal(scale=0.02, size=(4, 32)).astype(np.float32)
    content["arrays"] = to_array_record({"ctx": sent}, dtype)

    def update() -> float:
        record = send(folder, "train", content, told).content.array_records["arrays"]
        found = from_array_record(record, {"ctx.B": (1, 32)}, dtype)["ctx.B"]
        return float(np.linalg.norm(columns(4, 1, 0).astype(np.float64) @ found))

    rule(folder, "max_norm", "0")
    free = update()
    limit = free / 10
    rule(folder, "max_norm", repr(limit))
    assert 0.9 * limit < update() <= limit


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_an_update_is_shortened_to_the_allowed_norm(
    folder: SiteFolder, settings: Flat, dtype: str
) -> None:
    told = {**settings, "server.dtype": dtype, "fit.learning_rate": 0.5}
    content = asked()
    content["arrays"] = to_array_record(start(), dtype)

    def update() -> float:
        record = send(folder, "train", content, told).content.array_records["arrays"]
        new = from_array_record(record, SHAPES, dtype)
        old = from_array_record(content["arrays"], SHAPES, dtype)
        products = [
            x["ctx.A"].astype(np.float64) @ x["ctx.B"].astype(np.float64) for x in (new, old)
        ]
        return float(np.linalg.norm(products[0] - products[1]))

    rule(folder, "max_norm", "0")
    free = update()
    limit = free / 10
    rule(folder, "max_norm", repr(limit))
    assert 0.9 * limit < update() <= limit


def test_a_withheld_loss_is_left_out_and_evaluation_abstains(
    folder: SiteFolder, settings: Flat
) -> None:
    rule(folder, "metrics", '["num-examples", "correct"]')
    assert set(metrics(train(folder, settings))) == {"num-examples", "receipt"}
    scored = dict(metrics(evaluate(folder, settings)))
    stamp = scored.pop("receipt")
    assert scored == {"num-examples": 0, "correct": 0, "loss": 0.0}
    assert isinstance(stamp, int)


def test_a_withheld_count_is_one_under_uniform_weights(folder: SiteFolder, settings: Flat) -> None:
    rule(folder, "metrics", "[]")
    uniform = {**settings, "server.weighting": "uniform"}
    found = dict(metrics(train(folder, uniform)))
    assert found.pop("receipt")
    assert found == {"num-examples": 1}
    card = send(folder, "query", query(), uniform).content.config_records["identity"]
    assert card["num-examples"] == 1


HOSTILE = {
    "data.source": "/etc",
    "data.class_names": "a,b",
    "data.holdout": 0.9,
    "data.limit": 1,
    "data.root": "/",
    "backbone.name": "hf-hub:evil/model",
    "backbone.device": "cuda",
    "fit.threads": 64,
    "fit.encode_batch": 1_000_000,
    "fit.cache": False,
    "fit.rank": 1,
    "node.server": "evil.example.org:1",
    "min_sites": 1,
    "max_norm": 0.0,
    "policy.max_norm": 0.0,
    "site-folder": "elsewhere",
    "metrics": "num-examples",
}


@pytest.mark.parametrize("key", HOSTILE)
def test_no_setting_of_a_server_changes_what_is_the_sites(
    folder: SiteFolder, settings: Flat, key: str
) -> None:
    """Answers, files and policy are those of a run without the setting."""
    rule(folder, "metrics", '["num-examples", "correct"]')
    before = {file: file.read_bytes() for file in (folder.toml, folder.policy, folder.classes)}
    told = {**settings, key: HOSTILE[key]}
    assert folder.settings(told) == folder.settings(settings) | {
        k: v
        for k, v in told.items()
        if k not in settings and not k.startswith(("data.", "backbone."))
    }
    if key in settings:
        honest, hostile = train(folder, settings).content, train(folder, told).content
        for name in SHAPES:
            mine, theirs = (c.array_records["arrays"][name].data for c in (honest, hostile))
            assert mine == theirs
        assert set(hostile.metric_records["metrics"]) == {"num-examples", "receipt"}
    assert {file: file.read_bytes() for file in before} == before


def test_settings_that_change_each_time_fill_no_memory(folder: SiteFolder, settings: Flat) -> None:
    for seed in range(5):
        train(folder, {**settings, "prompt.seed": seed})
    assert module._own_site.cache_info().currsize <= 2


def test_the_log_tells_what_left_to_the_byte(folder: SiteFolder, settings: Flat) -> None:
    replies = [
        send(folder, "query", query(), settings),
        train(folder, settings),
        evaluate(folder, settings),
        train(folder, settings, sites=1),
    ]
    entries = log(folder)
    assert [entry["kind"] for entry in entries] == ["query", "train", "evaluate", "train"]
    for reply, entry in zip(replies, entries, strict=True):
        assert entry["bytes"] == message_to_proto(reply).ByteSize()
        assert entry["server"] == SERVER
    assert entries[-1]["day_bytes"] == sum(entry["bytes"] for entry in entries)
    sent = replies[1].content.array_records["arrays"]
    for told in entries[1]["arrays"]:
        array = sent[told["name"]]
        assert told["sha256"] == sha256_bytes(array.data)
        assert (told["shape"], told["dtype"]) == (list(array.shape), "float32")
        values = np.frombuffer(array.data, "<f4").astype(float)
        assert told["norm"] == pytest.approx(np.linalg.norm(values))
        assert told["bytes"] == len(array.data)
    assert {told["name"] for told in entries[1]["arrays"]} == set(SHAPES)
    assert entries[1]["metrics"] == dict(metrics(replies[1]))
    assert entries[2]["metrics"] == dict(metrics(replies[2]))
    assert entries[0]["identity"] == dict(replies[0].content.config_records["identity"])
    assert entries[3]["error"] == replies[3].error.reason
    assert (entries[1]["run"], entries[1]["round"]) == ("abc", 1)


def test_it_is_logged_and_synced_before_it_leaves(
    folder: SiteFolder, settings: Flat, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        real(descriptor)
        synced.append(folder.egress.read_text() if folder.egress.exists() else "")

    monkeypatch.setattr(os, "fsync", fsync)
    reply = train(folder, settings)
    stamp = metrics(reply)["receipt"]
    assert any(str(stamp) in text for text in synced)


@pytest.mark.parametrize("sites", [5, 1])
def test_f23_what_cannot_be_logged_does_not_leave(
    folder: SiteFolder, settings: Flat, monkeypatch: pytest.MonkeyPatch, sites: int
) -> None:
    """Neither an answer nor an error: the exception ends the task, and nothing is sent."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(egress_log.os, "write", full)
    with pytest.raises(StorageError):
        train(folder, settings, sites=sites)


def test_an_exceptions_text_stays_here(
    folder: SiteFolder, settings: Flat, caplog: pytest.LogCaptureFixture
) -> None:
    folder.toml.write_text(folder.toml.read_text().replace("holdout = 0.2", "holdout = 7.0"))
    folder.toml.write_text(folder.toml.read_text().replace(SECRET, f"{SECRET}-gone"))
    with caplog.at_level(logging.ERROR):
        reason = refused(train(folder, settings))
    assert reason == "ConfigError; see the site's own log"
    assert "holdout" in caplog.text


def test_no_name_of_a_file_or_folder_leaves_by_any_answer(
    folder: SiteFolder, settings: Flat, caplog: pytest.LogCaptureFixture
) -> None:
    """Honest answers, and errors whose texts name pictures and folders."""
    replies = [
        send(folder, "query", query(), settings),
        train(folder, settings),
        evaluate(folder, settings),
    ]
    for picture in sorted((folder.path.parent / SECRET).rglob("*.png"))[:4]:
        picture.write_bytes(b"no image")
    (folder.path.parent / SECRET / f"{SECRET}-class").mkdir()
    for cached in (load.inspect, load._parts, module._own_site):
        cached.cache_clear()
    with caplog.at_level(logging.ERROR):
        replies.append(train(folder, settings))
    assert refused(replies[-1]).startswith("DataError;")
    assert SECRET in caplog.text  # here it is told
    for reply in replies:
        data = message_to_proto(reply).SerializeToString()
        for told in (SECRET.encode(), str(folder.path).encode(), b".png", b"/tmp"):
            assert told not in data


def test_folder_names_do_not_leave_in_place_of_the_class_list(
    folder: SiteFolder, settings: Flat, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody takes class_names for unnecessary: the identity would name the folders."""
    for name in CLASSES:
        (folder.path.parent / SECRET / name).rename(
            folder.path.parent / SECRET / f"{name}-{SECRET}"
        )
    text = folder.toml.read_text().replace("[data]", '[data]\nclass_names = ""')
    folder.toml.write_text(text)
    reply = send(folder, "query", query(), settings)
    assert "classes of this site" in refused(reply)
    assert SECRET.encode() not in message_to_proto(reply).SerializeToString()


@pytest.mark.parametrize("kind", ["query", "train", "evaluate"])
def test_whatever_an_app_adds_does_not_pass(
    folder: SiteFolder, settings: Flat, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The border knows what an answer holds; more of it is a mistake, ours or somebody's."""

    def greedy(message: Message, context: object) -> Message:
        reply = {
            "query": lambda: RecordDict({"identity": ConfigRecord({"names": SECRET})}),
            "train": lambda: RecordDict(
                {"arrays": to_array_record(start(), "float32"), "metrics": MetricRecord({"x": 1})}
            ),
            "evaluate": lambda: RecordDict(
                {"metrics": MetricRecord({}), "names": ConfigRecord({"names": SECRET})}
            ),
        }[kind]()
        return Message(reply, reply_to=message)

    content = query() if kind == "query" else asked()
    monkeypatch.setattr(egress_filter.EgressFilter, "answer", _with(greedy))
    assert refused(send(folder, kind, content, settings)).startswith("refused by the site's policy")


def _forbidden(*_: object) -> Message:
    raise AssertionError


def _with(app: object) -> object:
    real = egress_filter.EgressFilter.answer
    return lambda self, message, context, _: real(self, message, context, app)


def test_numbers_that_are_none_do_not_pass(
    folder: SiteFolder, settings: Flat, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(message: Message, context: object) -> Message:
        told = MetricRecord({"num-examples": 1, "loss": float("inf"), "receipt": 1})
        content = RecordDict({"arrays": to_array_record(start(), "float32"), "metrics": told})
        return Message(content, reply_to=message)

    monkeypatch.setattr(egress_filter.EgressFilter, "answer", _with(broken))
    assert "loss is no finite number" in refused(train(folder, settings))


def test_a_simulation_passes_untouched(
    folder: SiteFolder, settings: Flat, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No policy, no log: the same bytes as before there was a border."""

    def forbidden(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(egress_filter, "EgressFilter", forbidden)
    source = str(folder.path.parent / SECRET)
    told = {**settings, "data.source": source, "data.partitioner": "iid", "data.test_share": 0.0}
    node = {"partition-id": 0, "num-partitions": 1}
    reply = send(folder, "train", asked(), told, node)
    assert set(metrics(reply)) == {"num-examples", "loss", "receipt"}
    assert not folder.egress.exists()
    digest = module._known_site(RunConfig.parse(told), 0, 1).digest
    assert metrics(reply)["receipt"] == receipt("abc", 1, 0, digest)
