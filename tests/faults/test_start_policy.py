"""What a deployed site tells of its patch tokens, before the first round, and what its policy says.

Real ClientApp calls of a deployed site; the server's part is in
tests/unit/server/rounds/test_spt_start.py.
"""

from pathlib import Path

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from client import app as module
from client import site as site_module
from client.deployment.egress_log import EgressLog
from client.deployment.site_folder import SiteFolder
from fedprompt.backbone.clip import FrozenClip
from fedprompt.data import load
from fedprompt.settings.run_config import defaults
from fedprompt.settings.section import Flat
from fedprompt.wire import CENTRES, from_array_record
from tests.enrolled import invitation, rule, send, site
from tests.pictures import image_folder

CLASSES = ("cat", "dog")
SHAPES = {f"visual.{i}": (4, 48) for i in range(3)}


@pytest.fixture(autouse=True)
def loaded(
    clip: FrozenClip, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setenv("FEDPROMPT_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr(site_module, "shared_backbone", lambda config: clip)
    for cached in (load.inspect, load._parts, module._known_site, module._own_site):
        cached.cache_clear()


def make(path: Path, photos: Path, clip: FrozenClip, least: str = "0.05") -> SiteFolder:
    folder = site(path, photos, invitation(CLASSES, clip, method="spt"))
    if least:
        rule(folder, "min_start_noise", least)
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return image_folder(tmp_path / "photos", CLASSES, 10)


@pytest.fixture
def folder(clip: FrozenClip, tmp_path: Path, photos: Path) -> SiteFolder:
    return make(tmp_path / "site", photos, clip)


@pytest.fixture
def settings() -> Flat:
    own = {"prompt.method": "spt", "prompt.start_noise": 0.1, "prompt.tokens": 4}
    return {**defaults(), **own, "server.rounds": 3}


def ask(folder: SiteFolder, settings: Flat, sites: int = 5) -> Message:
    told = {"run": "abc", "round": 0, "seed": 7, "mu": 0.0, "sites": sites}
    return send(folder, CENTRES, RecordDict({"config": ConfigRecord(told)}), settings)


def told(reply: Message) -> dict[str, np.ndarray]:
    return from_array_record(reply.content.array_records["arrays"], SHAPES, "float32")


def log(folder: SiteFolder) -> list[dict]:
    lines, faults = EgressLog(folder.egress).verify()
    assert faults == []
    return [dict(line.entry) for line in lines]


def test_centres_a_count_and_a_receipt_leave_and_are_in_the_log(
    folder: SiteFolder, settings: Flat
) -> None:
    reply = ask(folder, settings)
    assert set(reply.content) == {"arrays", "metrics"}
    assert set(reply.content["metrics"]) == {"num-examples", "receipt"}
    assert reply.content["metrics"]["num-examples"] == 16
    arrays = told(reply)
    (entry,) = log(folder)
    assert entry["kind"] == CENTRES
    assert {array["name"]: tuple(array["shape"]) for array in entry["arrays"]} == SHAPES
    for array in entry["arrays"]:
        assert array["norm"] == pytest.approx(np.linalg.norm(arrays[array["name"]]), rel=1e-6)


def test_asked_again_it_answers_the_same_and_its_key_seeds_the_noise(
    clip: FrozenClip, tmp_path: Path, photos: Path, settings: Flat
) -> None:
    one = make(tmp_path / "one", photos, clip)
    first, again = told(ask(one, settings)), told(ask(one, settings))
    other = told(ask(make(tmp_path / "other", photos, clip), settings))  # the same images
    for name in SHAPES:
        assert np.array_equal(first[name], again[name])
        assert not np.array_equal(first[name], other[name])


@pytest.mark.parametrize(
    ("rules", "changes", "sites", "reason"),
    [
        ({"min_start_noise": "0.0"}, {}, 5, "min_start_noise: centres of patch tokens may not"),
        ({"min_start_noise": "0.5"}, {}, 5, "min_start_noise: 0.5 at least, the run has 0.1"),
        ({"min_sites": "9"}, {}, 5, "min_sites: 9 at least, the server names 5"),
        ({"secure_aggregation_only": "true"}, {}, 5, "secure_aggregation_only:"),
        ({"methods": '["dip"]'}, {}, 5, "methods: 'spt' is asked for"),
        (
            {"secure_aggregation_only": "true"},
            {"server.secure_aggregation": True},
            5,
            "secure_aggregation_only: centres of patch tokens are not masked",
        ),
        ({"max_message": "500"}, {}, 5, "max_message:"),
    ],
)
def test_the_policy_has_the_last_word(
    folder: SiteFolder, settings: Flat, rules: dict, changes: dict, sites: int, reason: str
) -> None:
    for key, value in rules.items():
        rule(folder, key, value)
    reply = ask(folder, {**settings, **changes}, sites)
    assert reply.has_error()
    assert str(reply.error.reason).startswith(f"refused by the site's policy: {reason}")
    assert log(folder)[-1]["arrays"] == []


def test_by_default_no_centre_leaves(
    clip: FrozenClip, tmp_path: Path, photos: Path, settings: Flat
) -> None:
    reply = ask(make(tmp_path / "plain", photos, clip, least=""), settings)
    assert "min_start_noise" in str(reply.error.reason)


@pytest.mark.parametrize(
    "changes",
    [
        {"prompt.start_noise": 0.0},
        {"prompt.method": "vpt"},
        {"server.secure_aggregation": True},
    ],
)
def test_a_site_answers_only_where_the_run_is_such_a_one(
    settings: Flat, photos: Path, changes: dict
) -> None:
    """In a simulation no policy stands before the app."""
    own = {"data.source": str(photos), "data.partitioner": "iid", "data.test_share": 0.0}
    content = RecordDict({"config": ConfigRecord({"run": "abc", "round": 0})})
    node = {"partition-id": 0, "num-partitions": 2}
    with pytest.raises(Exception, match="centres of patch tokens"):
        send(SiteFolder(Path()), CENTRES, content, {**settings, **own, **changes}, node)


def test_without_the_count_a_site_weighs_one(folder: SiteFolder, settings: Flat) -> None:
    rule(folder, "metrics", '["loss"]')
    reply = ask(folder, {**settings, "server.weighting": "uniform"})
    assert reply.content["metrics"]["num-examples"] == 1


def test_the_server_names_no_images_to_a_site(folder: SiteFolder, settings: Flat) -> None:
    """A path of the server's would be read at the site."""
    hostile = {**settings, "prompt.public": "/home/smith/scans", "prompt.form": "lowrank"}
    assert folder.settings(hostile)["prompt.public"] == ""
    text = folder.toml.read_text() + '\n[prompt]\npublic = "/data/public"\n'
    folder.toml.write_text(text)
    assert folder.settings(hostile)["prompt.public"] == "/data/public"
