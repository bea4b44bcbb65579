"""Real processes, and what sites do to them: F07, F10, F12-F16, F18, F19, F34.

The tests share a deployment, in any order and each alone: what one of them ended is started for the
next.
"""

import http.client
import shutil
import signal
import ssl
import sys
from contextlib import contextmanager

import pytest

from client.deployment import connection_status
from client.deployment.site_folder import SiteFolder
from client.deployment.supervisor import environment
from client.deployment.tls_probe import tls_context
from fedprompt.protocol import invitation as invitations
from server.deployment import credentials, issuer, sites
from server.run_folder import run_status
from tests.deployment import SCRIPTS, deployment, log_lines, pictures, wait

DEADLINE = 20.0  # seconds of an exchange: what a stopped site costs a round
HANG = 15 * DEADLINE  # no measure of speed: without the deadline it would be hours
NORTH, SOUTH, EAST, WEST = range(4)
pytestmark = pytest.mark.slow

SETTINGS = {
    "server.rounds": 5000,  # more than there is time for
    "server.min_sites": 3,
    "server.deadline": DEADLINE,
    "server.retries": 1,
    "server.quarantine": 4,
    "server.quarantine_rounds": 1000,
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Make a server's folder, whose certificate ends soon, and those of three honest sites."""
    with deployment(tmp_path_factory.mktemp("live"), SETTINGS, days=20) as made:
        for seed, name in enumerate(("north", "south", "east")):
            made.site(name, seed)
        yield made


@pytest.fixture
def live(shared):
    """Return the deployment with its server and three honest sites at work.

    Where a site has to be started, so has the server: its round could end below quorum first.
    """
    honest = shared.sites[:WEST]
    ended = [site for site in honest if not at_work(site.client)]
    for site in honest:
        if site in ended:
            site.start()
        else:
            site.client.send(signal.SIGCONT)
    if ended or not at_work(shared.server):
        if shared.server:
            shared.server.end()
        shared.serve()
    shared.until(lambda line: {NORTH, SOUTH, EAST} <= set(line.get("accepted", ())), "all at work")
    return shared


def at_work(process):
    return process is not None and process.process.poll() is None


def next_rounds(live, count=1):
    """Wait until some rounds that begin from now on are committed, and return their lines."""
    reached = live.round()
    live.wait_round(reached + 1 + count)
    return [line for line in live.lines() if line["round"] > reached + 1]


def copy_of(live, name, as_name):
    """Return a copy of a site's folder, as on another machine."""
    folder = SiteFolder(live.root / as_name)
    left = shutil.ignore_patterns("flower", "logs", "*.lock", "contact.json", "egress*")
    shutil.copytree(live.root / name, folder.path, ignore=left)
    return folder


def impatient(folder):
    """Let a site give up at the first refusal."""
    text = folder.toml.read_text()
    folder.toml.write_text(text.replace("[node]\n", "[node]\npatience = 0\n"))


def client(live, folder):
    return live.run([SCRIPTS / "flower-client", "start", folder.path], folder.path.name)


@contextmanager
def hostile(live, folder, conduct):
    """Run a site whose people run another ClientApp."""
    flower = {k: v for k, v in environment(folder, folder.node()).items() if k.startswith("FLWR")}
    command = [sys.executable, "-m", "tests.hostile", folder.path, conduct]
    process = live.run(command, folder.path.name, **flower)
    try:
        yield
    finally:
        process.end()


def ask(live, method, path, port=None):
    """Send a request without a key, and return the status."""
    host, public = live.address.split(":")
    trust = tls_context(live.folder.ca_certificate)
    connection = http.client.HTTPSConnection(host, port or int(public), timeout=20, context=trust)
    try:
        connection.request(method, path, b"", {"Content-Type": "application/protobuf"})
        return connection.getresponse().status
    finally:
        connection.close()


def test_F16_server_and_site_warn_that_the_certificate_ends(live):
    told = [x["message"] for x in log_lines(live.folder.logs) if x["level"] == "warning"]
    assert any("certificate expires in" in text for text in told)


def test_F15_only_the_doors_of_sites_are_open_even_on_this_machine(live):
    """Whoever reaches the control API may submit code; so nobody does by the public port."""
    control = live.folder.config().control_port
    for path in ("/v1/control/list-runs", "/v1/control/start-run", "/v1/runtime/acquire-task"):
        assert ask(live, "POST", path, control) != 404, "the path is no real one"
        assert ask(live, "POST", path) == 404
        assert ask(live, "POST", f"/v1/fleet/../{path.removeprefix('/v1/')}") != 200
    assert ask(live, "GET", "/docs") == 404
    audit = wait(lambda: live.audit("refused"), "the audit")
    assert {"/v1/control/list-runs", "/v1/runtime/acquire-task"} <= {x["path"] for x in audit}
    assert {x["peer"] for x in audit} == {"127.0.0.1"}


def test_F15_no_key_and_plaintext_get_nothing(live):
    for path in ("activate-node", "register-node", "pull-messages", "push-messages"):
        assert ask(live, "POST", f"/v1/fleet/{path}") in (401, 403)
    host, port = live.address.split(":")
    plain = http.client.HTTPConnection(host, int(port), timeout=20)
    plain.request("POST", "/v1/fleet/pull-messages")
    with pytest.raises((http.client.HTTPException, OSError)):
        plain.getresponse()
    plain.close()
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1 is deprecated"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    ancient = http.client.HTTPSConnection(host, int(port), timeout=20, context=old)
    with pytest.raises(ssl.SSLError):
        ancient.connect()


def test_F15_a_key_that_is_not_enrolled_or_revoked_is_refused(live):
    """Both clients give up by themselves, with an exit code of their own; the audit has both."""
    stranger = copy_of(live, "north", "stranger")
    stranger.key.write_text(issuer.ssh_pair(issuer.new_key())[0])
    left = live.site("west", WEST)
    sites.revoke(live.folder.path, "west")
    wait(lambda: left.number not in live.nodes() and live.nodes(), "the server follows the list")
    before = len(live.audit("refused"))
    for folder in (stranger, left.folder):
        impatient(folder)
        refused = client(live, folder)
        assert refused.result() == 16, refused.told()
        assert refused.family() == {}
        assert "refuses this site's key" in refused.told()
        assert connection_status.read(folder.contact).refused
    found = live.audit("refused")[before:]
    at_the_door = [x["message"] for x in found if x["path"] == "/v1/fleet/activate-node"]
    assert len(at_the_door) >= 2
    assert all("not enrolled" in message for message in at_the_door)


def test_F12_F13_F14_F15_a_site_that_passes_for_another_is_not_admitted(live):
    """Number, CLIP, tokenizer, classes, version: each is named; the truth is let in."""
    west = live.site("south-west", 4)
    agreed = west.folder.invitation()
    with hostile(live, west.folder, "impostor"):
        line = live.until(lambda x: west.number in x["asked"], "west is admitted in the end")
        node = live.nodes()[west.number]["node"]
    told = live.audit("not admitted")
    assert {x["node"] for x in told} == {node}
    number, clip, tokenizer, classes, version = [x["message"] for x in told]
    assert "0" in number
    assert "enrolled" in number
    assert "0" * 64 in clip
    assert agreed.backbone.sha256 in clip
    assert "1" * 64 in tokenizer
    assert agreed.tokenizer in tokenizer
    assert "cyan" in classes
    assert "blue" in classes
    assert "9.9.9" in version
    assert agreed.version in version
    for earlier in [x for x in live.lines() if x["round"] < line["round"]]:
        assert str(west.number) not in earlier["nodes"]
        assert len(set(earlier["nodes"].values())) == len(earlier["nodes"])


def test_F12_F13_F14_joining_is_refused_before_anything_is_sent(live):
    """One process a fault, at the running server."""
    found = invitations.read_file(live.sites[NORTH].invitation)
    key = credentials.ca_key(live.folder)
    other = found.backbone.model_copy(update={"sha256": "0" * 64})
    yellow = pictures(live.root / "yellow", 5)
    (yellow / "blue").rename(yellow / "yellow")
    faults = {
        "clip": ({"backbone": other}, "pictures-north", 4, ["0" * 64, found.backbone.sha256]),
        "version": ({"version": "9.9.9"}, "pictures-north", 2, ["9.9.9", found.version]),
        "classes": ({}, "yellow", 3, ["yellow", "blue"]),
    }
    joining = {}
    for name, (changes, images, _, _) in faults.items():
        invitation = live.root / f"{name}.fedprompt"
        invitation.write_bytes(invitations.pack(found.model_copy(update=changes), key))
        command = [SCRIPTS / "flower-client", "join", invitation, "--data", live.root / images]
        joining[name] = live.run([*command, "--folder", live.root / name], name)
    for name, (_, _, code, told) in faults.items():
        assert joining[name].result() == code, joining[name].told()
        for text in told:
            assert text in joining[name].told()
        assert "nothing was sent" in joining[name].told()
        assert not (live.root / name / "egress.jsonl").exists()


def test_F10_one_key_on_two_machines_is_one_node(live):
    """The second is refused at the door while the first is there, which notices nothing."""
    twin = copy_of(live, "south", "twin")
    impatient(twin)
    node, before = live.nodes()[SOUTH]["node"], len(live.audit("refused"))
    second = client(live, twin)
    assert second.result() == 16, second.told()
    assert any("online already" in line["message"] for line in live.audit("refused")[before:])
    assert not twin.egress.exists()
    for line in next_rounds(live):
        assert line["accepted"] == [NORTH, SOUTH, EAST]
        assert line["nodes"][str(SOUTH)] == node


def test_F07_a_hostile_client_is_named_and_quarantined(live):
    """A far sign flip, huge norm, NaN and wrong shapes over a real SuperNode; the run goes on."""
    mallory = live.site("mallory", 9)
    number = mallory.number
    with hostile(live, mallory.folder, "attack"):
        last = live.until(lambda line: number in line["quarantined"], "the quarantine")
    lines = [line for line in live.lines() if number in line.get("asked", [])]
    assert lines[-1] == last
    reasons = [
        tuple(verdict["reasons"])
        for line in lines
        for verdict in line["verdicts"]
        if verdict["site"] == number
    ]
    assert len(reasons) == len(lines), "each attack is named in the record of its round"
    flip, norm, nan, shape = reasons[:4]
    assert flip == ("clipped",)  # well formed: it is known by its length alone
    assert (norm, nan, shape) == (("norm",), ("not-finite",), ("wrong-shape",))
    for line in lines:
        assert {NORTH, SOUTH, EAST} <= set(line["accepted"])
    for line in next_rounds(live):
        assert number not in line["asked"]
        assert line["loss"] < 2
    assert any("quarantine" in x["message"] for x in log_lines(live.folder.logs))


def test_F18_a_stopped_site_is_named_and_comes_back(live):
    site = live.sites[EAST]
    site.client.send(signal.SIGSTOP)
    late = live.until(lambda line: EAST in line["asked"] and EAST not in line["answered"], "east")
    assert [(v["reasons"], v["accepted"]) for v in late["verdicts"] if v["site"] == EAST] == [
        (["timeout"], False)
    ]
    assert {NORTH, SOUTH} <= set(late["accepted"])
    assert DEADLINE <= late["seconds"] < HANG, "nobody waits for it past the deadline"
    site.client.send(signal.SIGCONT)
    back = live.until(lambda line: EAST in line["accepted"], "east is back")
    assert back["strikes"].get(str(EAST), 0) == 0, "a lost link is no offence"
    # whatever east sent late of the round that had gone on without it, was counted nowhere (F11)
    rounds = [line["round"] for line in live.lines() if EAST in line.get("accepted", [])]
    assert late["round"] not in rounds
    for line in live.lines()[1:]:
        assert len(set(line["accepted"])) == len(line["accepted"])


def test_F18_a_killed_site_takes_part_again_once_it_is_started(live):
    site = live.sites[EAST]
    trained = len(site.trained())
    site.client.process.kill()  # the supervisor only: its children let go by themselves
    site.client.result()
    wait(lambda: not site.client.family(), "the children of a killed client end")
    site.start()
    live.until(lambda line: EAST in line["accepted"], "east is back")
    assert len(site.trained()) > trained


def test_F34_a_server_that_is_told_to_stop_leaves_and_goes_on(live):
    live.server.process.terminate()
    assert live.server.result() == 143, live.server.told()
    assert live.server.family() == {}
    assert "Traceback" not in live.server.told()
    before = live.lines()
    assert run_status.read(live.folder.run) is None
    live.serve()
    live.wait_round(before[-1]["round"] + 1)
    assert live.lines()[: len(before)] == before, "a committed round was run again"


def test_F19_below_quorum_the_last_round_is_kept_and_the_run_goes_on_later(live):
    for number in (SOUTH, EAST):
        live.sites[number].client.send(signal.SIGSTOP)
    assert live.server.result() == 8, live.server.told()
    assert live.server.family() == {}
    kept, told = live.round(), live.server.told()
    assert f"round {kept + 1} stayed below quorum in 2 tries" in told
    assert f"round {kept} is kept" in told
    assert "1 of 3 replies passed" in told
    for number in (SOUTH, EAST):
        live.sites[number].client.send(signal.SIGCONT)
    live.serve()
    line = live.wait_round(kept + 1)
    assert set(line["accepted"]) == {NORTH, SOUTH, EAST}


def test_F34_a_client_that_is_told_to_stop_leaves_nothing_behind(live):
    for site in live.sites[:WEST]:
        site.client.process.terminate()
        assert site.client.result() == 0, site.client.told()
        assert site.client.family() == {}
        assert "Traceback" not in site.client.told()


def test_no_site_was_ever_counted_twice(live):
    """What each site sent, by its own log, is at least what was counted."""
    for site in live.sites[:WEST]:
        sent = {line["round"] for line in site.trained()}
        counted = [x["round"] for x in live.lines() if site.number in x.get("accepted", [])]
        assert set(counted) <= sent
        assert len(counted) == len(set(counted))
