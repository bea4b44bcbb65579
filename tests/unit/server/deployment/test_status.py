import json

import pytest

from fedprompt.errors import ConfigError, QuorumError
from fedprompt.identity import canonical_json
from server.deployment import single_instance, sites
from server.deployment import status as statuses
from server.deployment.folder import DeploymentFolder
from server.deployment.status import lines
from server.run_folder import run_status
from tests.paperwork import deployment


@pytest.fixture
def folder(tmp_path) -> DeploymentFolder:
    made = deployment(tmp_path / "d", server__rounds=5)
    for name in ("st-mary", "b", "gone"):
        sites.add(made.path, name, f"key of {name}", 100)
    sites.revoke(made.path, "gone")
    return made


def verdict(site, *reasons: str, accepted: bool = True) -> dict:
    return {"site": site, "node": 9, "accepted": accepted, "reasons": list(reasons)}


def play(folder, *rounds: dict) -> None:
    folder.run.mkdir()
    text = b"".join(canonical_json({"round": n} | line) + b"\n" for n, line in enumerate(rounds))
    (folder.run / "rounds.jsonl").write_bytes(text)


def nodes(folder) -> None:
    seen = "2026-01-02T03:04:05+00:00"
    told = [
        {"number": 0, "name": "st-mary", "online": True, "last_seen": seen},
        {"number": 1, "name": "b", "online": False, "last_seen": None},
    ]
    folder.nodes.write_bytes(canonical_json({"sites": told}))


def test_before_the_first_start_everybody_is_offline(folder):
    told = statuses.summary(folder)
    assert (told["running"], told["run"], told["round"], told["rounds"]) == (
        False, "not running", None, 5,
    )  # fmt: skip
    assert [site["online"] for site in told["sites"]] == [False, False, False]
    assert told["certificate"] == {"days": 396, "fault": None, "warning": None}
    assert "no round yet of 5" in lines(told)


def test_a_run_is_told_site_by_site(folder):
    nodes(folder)
    play(
        folder,
        {"accuracy": 0.25},
        {"verdicts": [verdict(0), verdict(1, "norm", accepted=False), verdict(None, "stale")]},
        {"verdicts": [verdict(0, "clipped")], "strikes": {"1": 3}, "quarantined": [1]},
    )
    with single_instance.exclusive(folder.lock):
        told = statuses.summary(folder)
    assert (told["run"], told["round"], told["accuracy"]) == ("running", 2, 0.25)
    first, second, third = told["sites"]
    assert (first["online"], first["strikes"], first["quarantined"]) == (True, 0, False)
    assert first["verdict"] == {"round": 2, "accepted": True, "reasons": ["clipped"]}
    assert second["verdict"] == {"round": 1, "accepted": False, "reasons": ["norm"]}
    assert (second["strikes"], second["quarantined"], third["revoked"]) == (3, True, True)
    shown = lines(told)
    assert "server runs at 127.0.0.1:9092; run: running" in shown
    assert "round 2 of 5, accuracy 25.0%" in shown
    assert "offline, quarantined" in shown
    assert "round 1: refused (norm)" in shown
    assert json.loads(json.dumps(told)) == told


def test_an_ordinary_reply_is_a_verdict_too(folder):
    play(folder, {"verdicts": [verdict(1, "norm", accepted=False)]}, {"accepted": [0, 1]})
    told = [site["verdict"] for site in statuses.summary(folder)["sites"]]
    assert told == [{"round": 1, "accepted": True, "reasons": []}] * 2 + [None]


def test_nobody_is_online_at_a_server_that_does_not_run(folder):
    nodes(folder)
    assert not any(site["online"] for site in statuses.summary(folder)["sites"])


def test_the_end_of_a_run_is_told(folder):
    folder.run.mkdir()
    run_status.write_failure(folder.run, QuorumError("too few\nsites"))
    told = statuses.summary(folder)
    assert (told["run"], told["error"]) == ("failed", "too few\nsites")
    assert "error: too few sites" in lines(told)
    run_status.write_success(folder.run, "0" * 64)
    assert statuses.summary(folder)["run"] == "done"


def test_a_damaged_list_of_nodes_hides_nothing_else(folder):
    for text in (b"", b"[]", b'{"sites": [{}]}', b"\xff"):
        folder.nodes.write_bytes(text)
        assert len(statuses.summary(folder)["sites"]) == 3


def test_F16_a_missing_certificate_is_told_and_not_raised(folder):
    folder.certificate.unlink()
    fault = statuses.summary(folder)["certificate"]["fault"]
    assert "server.crt could not be read" in fault
    assert fault in lines(statuses.summary(folder))


def test_what_is_damaged_for_good_is_refused(folder, tmp_path):
    (folder.path / sites.NAME).write_bytes(b"{")
    with pytest.raises(ConfigError, match="is damaged"):
        statuses.summary(folder)
    with pytest.raises(ConfigError, match=r"holds no server.toml"):
        statuses.summary(DeploymentFolder(tmp_path))
