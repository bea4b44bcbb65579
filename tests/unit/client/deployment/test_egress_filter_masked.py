"""Secure aggregation passes a site's egress filter, is logged, and hides nothing else behind it."""

import json

import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from client.deployment import egress_filter
from client.deployment.egress_filter import policy_mod
from client.reply.secure_aggregation import secured
from fedprompt.errors import PolicyError
from server.rounds.local_grid import LocalGrid
from server.rounds.loop import Rounds
from tests.sites import client, config, start, task

KEY = "secaggplus_configs"
SERVER = "127.0.0.1:9092"


def site(folder, number):
    """Write a site's folder as the filter reads it."""
    folder.mkdir()
    (folder / "site.toml").write_text(f'[node]\nname = "s"\nnumber = {number}\nserver = "{SERVER}"')
    rules = f'servers = ["{SERVER}"]\nmin_sites = 3\nsecure_aggregation_only = true\n'
    (folder / "policy.toml").write_text(rules)
    (folder / "classes.json").write_text('["cat", "dog"]')
    return folder


def test_a_secure_round_passes_the_filter_and_is_in_the_log(tmp_path):
    chosen = config(
        tmp_path / "run", rounds=1, weighting="uniform", clip_norm=5.0, secure_aggregation=True
    )
    agreed = {f"server.{key}": value for key, value in chosen.model_dump().items()}
    agreed |= {"prompt.method": "dip", "fit.epochs": 1}
    folders = [site(tmp_path / f"site-{number}", number) for number in range(3)]
    with LocalGrid(client(mods=[policy_mod, secured]), 3, agreed) as grid:
        for folder, context in zip(folders, grid._contexts.values(), strict=True):
            context.node_config["site-folder"] = str(folder)
        state = Rounds(grid, task(start(rank=4)), chosen, 3).run()
    assert state.round == 1
    for folder in folders:
        lines = [json.loads(line) for line in (folder / "egress.jsonl").read_text().splitlines()]
        train = [line for line in lines if line["kind"] == "train"]
        assert len(train) == 4
        assert all(line["round"] == 1 and not line["arrays"] for line in train)
        assert all("error" not in line for line in lines)
        (sent,) = [line["identity"]["masked_params"] for line in train if line["metrics"]]
        assert [text[:7] for text in sent] == ["sha256:", "sha256:"]


def reply(**changes):
    content = RecordDict(
        {
            KEY: ConfigRecord({"masked_params": [b"1", b"2"]}),
            "fitres.parameters": ArrayRecord(),
            "fitres.num_examples": MetricRecord({"num_examples": 1}),
            "fitres.metrics": ConfigRecord({"receipt": 5}),
            "fitres.status": ConfigRecord({"code": 0, "message": ""}),
        }
    )
    for name, record in changes.items():
        content[name.replace("__", ".")] = record
    return content


def test_an_honest_masked_reply_passes():
    egress_filter.check_masked(reply())


@pytest.mark.parametrize(
    "changes",
    [
        {"note": MetricRecord({"x": 1})},
        {"arrays": ArrayRecord({"ctx": Array("float32", (1,), "raw", b"0000")})},
        {"fitres__parameters": ArrayRecord({"ctx": Array("float32", (1,), "raw", b"0000")})},
        {"fitres__num_examples": MetricRecord({"num_examples": 117})},
        {"fitres__num_examples": MetricRecord({"num_examples": 1, "loss": 0.5})},
        {"fitres__metrics": ConfigRecord({"receipt": 5, "patient": "Smith"})},
        {"fitres__status": ConfigRecord({"code": 0, "message": "/data/smith.png"})},
        {KEY: ConfigRecord({"masked_params": [b"1"], "more": b"x"})},
        {KEY: ConfigRecord({"pk1": b"1", "pk2": b"2"})},  # with the records of another stage
        {KEY: MetricRecord({"x": 1})},
    ],
)
def test_nothing_else_leaves_in_the_shape_of_one(changes):
    with pytest.raises(PolicyError):
        egress_filter.check_masked(reply(**changes))


def test_bytes_are_told_by_their_hash():
    assert egress_filter._loggable([b"", 3, "text"]) == [
        "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        3,
        "text",
    ]
