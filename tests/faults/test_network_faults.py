"""A server and a site in network namespaces of their own, and what becomes of the link (F20).

Everything stays inside the two namespaces, which are made here and removed at the end. Needs root;
elsewhere the tests say so and are skipped.
"""

import os
import shutil
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from client.deployment import connection_status
from tests.deployment import ROOT, Running, deployment, wait

DEADLINE = 20.0  # seconds of an exchange
NEAR, FAR = range(2)  # the site beside the server, and the one behind the link
SERVER, SITE = "10.203.77.1", "10.203.77.2"
SETTINGS = {"server.rounds": 5000, "server.deadline": DEADLINE, "server.quorum": 0.5}
pytestmark = pytest.mark.slow


def ip(*arguments: str, netns: str = "") -> str:
    inside = ["-n", netns] if netns else []
    done = subprocess.run(["ip", *inside, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"
    return done.stdout


class Link:
    """Two namespaces, and a link of two TUN devices between them that a process of ours carries.

    The kernel of a CI machine often lacks netem; so the process that carries the packets loses and
    delays them, as its file tells it.
    """

    def __init__(self, folder: Path) -> None:
        tag = uuid.uuid4().hex[:6]
        self.near, self.far = f"fp{tag}a", f"fp{tag}b"
        self.weather = folder / "weather"
        self.ends = ((self.near, SERVER, SITE), (self.far, SITE, SERVER))
        self.carrier: Running | None = None
        self.folder = folder

    def make(self) -> None:
        for netns, own, other in self.ends:
            ip("netns", "add", netns)
            ip("link", "set", "lo", "up", netns=netns)
            ip("tuntap", "add", "dev", "link0", "mode", "tun", netns=netns)
            ip("addr", "add", own, "peer", other, "dev", "link0", netns=netns)
            ip("link", "set", "link0", "up", netns=netns)
        self.be()
        command = [sys.executable, ROOT / "tests" / "lossy_link.py", self.near, self.far]
        self.carrier = Running([*command, "link0", self.weather], self.folder / "link.log")
        wait(lambda: "up" in self.carrier.told(), self.carrier.told())

    def be(self, loss: float = 0.0, delay: float = 0.0) -> None:
        """Lose a share of the packets and delay the others by some seconds, each way."""
        new = self.weather.with_suffix(".new")
        new.write_text(f"{loss} {delay}\n")
        new.rename(self.weather)

    def remove(self) -> None:
        if self.carrier:
            self.carrier.end()
        for netns in (self.near, self.far):
            subprocess.run(["ip", "netns", "del", netns], capture_output=True, check=False)


def why_not() -> str:
    """Return why namespaces cannot be used here; empty if they can."""
    if os.geteuid() != 0:
        return "needs root: network namespaces and TUN devices are made"
    if not shutil.which("ip"):
        return "needs the command ip (iproute2)"
    if not Path("/dev/net/tun").exists():
        return "needs /dev/net/tun"
    name = f"fp{uuid.uuid4().hex[:6]}x"
    try:
        ip("netns", "add", name)
        ip("tuntap", "add", "dev", "link0", "mode", "tun", netns=name)
    except AssertionError as error:
        return f"this machine allows no network namespaces: {error}"
    finally:
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    return ""


@pytest.fixture(scope="module")
def link(tmp_path_factory):
    if reason := why_not():
        pytest.skip(reason)
    made = Link(tmp_path_factory.mktemp("link"))
    try:
        made.make()
        yield made
    finally:
        made.remove()


@pytest.fixture(scope="module")
def live(link, tmp_path_factory):
    with deployment(tmp_path_factory.mktemp("live"), SETTINGS, host=SERVER) as made:
        near, far = made.site("near", NEAR), made.site("far", FAR)
        made.serve(link.near)
        near.start(link.near)
        far.start(link.far)
        made.wait_round(1)
        yield made
    for netns in (link.near, link.far):  # whatever was cut off meanwhile, no process is left
        wait(lambda netns=netns: not ip("netns", "pids", netns).split(), f"{netns} is empty")


def both(line):
    return set(line["accepted"]) == {NEAR, FAR}


def asked_now(live):
    """Wait until the far site works on a round: then it is in the middle of one."""
    site = live.sites[FAR]
    before = len(site.trained())
    live.wait(lambda: len(site.trained()) > before, "an update of the far site")


def test_F20_a_link_that_breaks_in_a_round(live, link):
    """The round ends at its deadline without the site, and the site takes part again by itself."""
    asked_now(live)
    link.be(loss=1.0)
    begun = time.monotonic()
    alone = live.until(lambda line: FAR not in line["accepted"], "a round without the far site")
    assert alone["accepted"] == [NEAR]
    if FAR in alone["asked"]:
        [verdict] = [v for v in alone["verdicts"] if v["site"] == FAR]
        assert (verdict["reasons"], verdict["accepted"]) == (["timeout"], False)
    assert alone["seconds"] < 15 * DEADLINE
    contact = live.sites[FAR].folder.contact
    trouble = wait(lambda: connection_status.read(contact).trouble, "trouble noted")
    assert trouble
    print(f"the round went on after {time.monotonic() - begun:.0f} s")  # noqa: T201
    assert live.sites[FAR].client.process.poll() is None
    link.be()
    back = live.until(both, "both again")
    assert back["strikes"] == {}
    counted = [x["round"] for x in live.lines() if FAR in x.get("accepted", [])]
    assert alone["round"] not in counted


def test_F20_a_link_that_flaps(live, link):
    """Cut every few seconds, for longer than an exchange; nothing hangs and nobody is struck."""
    reached = live.round()
    for _ in range(4):
        link.be(loss=1.0)
        time.sleep(2)
        link.be()
        time.sleep(3)
    line = live.until(both, "both")
    for flapping in [x for x in live.lines() if x["round"] > reached]:
        assert NEAR in flapping["accepted"]
        assert flapping["seconds"] < 15 * DEADLINE
    assert line["strikes"] == {}


def test_F20_a_bad_link_is_borne(live, link):
    """Every tenth packet lost, and a fifth of a second each way."""
    link.be(loss=0.1, delay=0.2)
    try:
        line = live.until(both, "both over the bad link")
    finally:
        link.be()
    assert line["verdicts"] == []
    sent = [line["round"] for line in live.sites[FAR].trained()]
    counted = [x["round"] for x in live.lines() if FAR in x.get("accepted", [])]
    assert len(counted) == len(set(counted))
    assert set(counted) <= set(sent)
