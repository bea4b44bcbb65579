"""``flower-server`` as its users type it; runs with real processes are in tests/integration."""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner, Result

from fedprompt.command_line import command, resolve
from server.deployment import credentials, issuer, single_instance, sites
from server.deployment.command import VERBS, group
from server.run_folder import run_status
from tests.paperwork import deployment

HEAVY = {"torch", "flwr", "onnx", "pydantic", "open_clip", "cryptography"}


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(group, [str(argument) for argument in arguments])


def test_help_is_quick_and_lists_every_verb():
    code = "import sys, server.deployment.command; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & set(done.stdout.split())
    shown = invoke("--help")
    assert all(name in shown.output and text in shown.output for name, (_, text) in VERBS.items())


@pytest.mark.parametrize("name", list(VERBS))
def test_every_verb_explains_itself(name):
    shown = CliRunner().invoke(command(name, resolve(VERBS[name][0])), ["--help"])
    assert shown.exit_code == 0
    assert "--json" in shown.output


@pytest.mark.parametrize(
    "arguments", [("start",), ("status",), ("renew",), ("revoke", "a", "--folder"),
                  ("enrol", "a", "--folder")],
)  # fmt: skip
def test_a_folder_that_is_no_deployment_is_refused_with_what_to_do(tmp_path, arguments):
    done = invoke(*arguments, tmp_path)
    assert done.exit_code == 2
    assert done.stderr.startswith("flower-server: ")
    assert len(done.stderr.splitlines()) == 1


def test_init_tells_a_person_what_is_next_and_a_program_what_was_made(tmp_path):
    arguments = ("--address", "fed.example.org:9092", "--classes", "a,b")
    done = invoke("init", tmp_path / "d", *arguments)
    assert done.exit_code == 0
    assert "flower-server enrol SITE" in done.output
    told = json.loads(invoke("init", tmp_path / "e", *arguments, "--json").stdout)
    assert told["classes"] == ["a", "b"]
    assert len(told["fingerprint"]) == 64
    again = invoke("init", tmp_path / "e", *arguments, "--json")
    assert json.loads(again.stdout)["exit_code"] == again.exit_code == 2


def test_a_setting_that_does_not_exist_is_refused(tmp_path):
    done = invoke(
        "init", tmp_path / "d", "--address", "x:1", "--classes", "a,b", "--set", "server.round=1"
    )
    assert done.exit_code == 2
    assert "did you mean server.rounds?" in done.stderr
    assert not (tmp_path / "d").exists()


def test_revoke_names_the_site(tmp_path):
    folder = deployment(tmp_path / "d")
    sites.add(folder.path, "st-mary", "key", 0)
    told = json.loads(invoke("revoke", "st-mary", "--folder", folder.path, "--json").stdout)
    assert told == {"site": "st-mary", "number": 0, "revoked": True}
    assert invoke("revoke", "st-mary", "--folder", folder.path).exit_code == 2


def test_renew_says_that_a_running_server_goes_on_with_the_old_one(tmp_path):
    folder = deployment(tmp_path / "d")
    before = folder.certificate.read_bytes()
    done = invoke("renew", folder.path, "--days", 40, "--revoke-old")
    assert "good for 39 days" in done.output
    assert "start a running server again" in done.output
    assert "ca.crl" in done.output
    assert folder.certificate.read_bytes() != before


@pytest.mark.parametrize(
    ("days", "shift", "said"),
    [(1, timedelta(days=-3), "expired on"), (9, timedelta(days=3), "is not valid before")],
)
def test_F16_a_server_does_not_start_with_a_certificate_that_sites_refuse(
    tmp_path, days, shift, said
):
    folder = deployment(tmp_path / "d")
    key, ca_key = issuer.new_key(), credentials.ca_key(folder)
    ca, now = credentials.ca_certificate(folder), datetime.now(UTC) + shift
    made = issuer.server_certificate(key, ca, ca_key, ["127.0.0.1"], days, now)
    folder.certificate.write_bytes(issuer.pem(made))
    folder.key.write_bytes(issuer.key_pem(key))
    done = invoke("start", folder.path)
    assert done.exit_code == 2
    assert said in done.stderr
    assert "make another with `flower-server renew`" in done.stderr
    assert said in invoke("status", folder.path).output


def test_F16_a_server_does_not_start_for_another_host(tmp_path):
    folder = deployment(tmp_path / "d")
    text = folder.toml.read_text().replace('"127.0.0.1:9092"', '"fed.example.org:9092"')
    folder.toml.write_text(text)
    done = invoke("start", folder.path)
    assert done.exit_code == 2
    assert "not for fed.example.org" in done.stderr


def test_a_second_server_in_a_folder_is_refused(tmp_path):
    folder = deployment(tmp_path / "d")
    with single_instance.exclusive(folder.lock):
        done = invoke("start", folder.path)
    assert done.exit_code == 1
    assert "a server runs in" in done.stderr


def done_after_one_round(path, rounds):
    folder = deployment(path, server__rounds=rounds)
    folder.run.mkdir()
    line = {"round": 1, "information_density": 0.5, "strikes": {}, "prompt": "0" * 64}
    (folder.run / "rounds.jsonl").write_text(json.dumps(line) + "\n")
    run_status.write_success(folder.run, "1" * 64)
    return folder


def test_more_rounds_than_a_finished_run_has_are_refused_with_what_to_do(tmp_path):
    done = invoke("start", done_after_one_round(tmp_path / "d", rounds=12).path)
    assert done.exit_code == 2
    assert "done after 1 rounds, server.rounds is now 12" in done.stderr
    assert "Move the folder away" in done.stderr


def test_a_run_that_was_done_before_is_told_and_nothing_is_started(tmp_path):
    folder = done_after_one_round(tmp_path / "d", rounds=1)
    told = json.loads(invoke("start", folder.path, "--json").stdout)
    assert (told["rounds"], told["artefact"]) == (1, "1" * 64)


def test_the_process_that_serves_for_weeks_loads_no_torch():
    """It only watches; a second or three of imports, and sites would find nobody listening yet."""
    code = "import sys, server.deployment.supervisor; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
