import errno
import socket
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedprompt.errors import ConfigError
from fedprompt.protocol import address
from tests.ipv6 import has_ipv6


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("localhost:1", ("localhost", 1)),
        ("fed.example.org:9092", ("fed.example.org", 9092)),
        ("192.0.2.7:65535", ("192.0.2.7", 65535)),
        ("[2001:db8::7]:9092", ("2001:db8::7", 9092)),
        ("st_mary-2.local.:80", ("st_mary-2.local.", 80)),
    ],
)
def test_a_host_and_a_port_are_read(text, expected):
    assert address.split(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", ":", "host", "host:", ":9092", "host:0", "host:65536", "host:9e3", "host:-1",
        "host:٣", "2001:db8::7:9092", "[fed.example.org]:9092", "[::1]", "[::1:9092", "a b:1",
        "http://host:1", "host:1\n", "../x:1", "-x:1", "a..b:1", "a" * 300 + ":1", "user@host:1",
        "[fe80::1%eth0]:9092",
    ],
)  # fmt: skip
def test_anything_else_is_refused_with_examples(text):
    with pytest.raises(ConfigError, match="expected host:port, such as"):
        address.split(text)


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text):
    try:
        host, port = address.split(text)
    except ConfigError:
        return
    assert 1 <= port <= 65535
    assert text == address.join(host, port) or text.rpartition(":")[2][0] == "0"


@pytest.mark.parametrize(
    ("host", "expected"),
    [("localhost", True), ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True),
     ("::", False), ("192.0.2.7", False), ("localhost.example.org", False), ("", False)],
)  # fmt: skip
def test_loopback_is_told_from_what_others_reach(host, expected):
    assert address.is_loopback(host) is expected


ONLY_HERE = ("127.0.0.1", "127.0.0.2", "::1", "localhost")


def reached(doors: list[socket.socket]) -> set[str]:
    """Return which of this machine's two loopback addresses lead to one of the doors."""
    found = set()
    for door in doors:
        port = door.getsockname()[1]
        for host in ("127.0.0.1", "::1"):
            with suppress(OSError):
                socket.create_connection((host, port), 30).close()
                found.add(host)
    return found


@pytest.mark.parametrize(
    "text", [*address.EXAMPLES, *(address.join(host, 9092) for host in ONLY_HERE)]
)
def test_who_dials_an_address_reaches_what_is_listened_on_for_it(text: str) -> None:
    host, _ = address.split(text)
    expected = {
        "127.0.0.1": {"127.0.0.1"},
        "127.0.0.2": set(),
        "::1": {"::1"},
        "192.0.2.7": {"127.0.0.1"},
        "2001:db8::7": {"127.0.0.1", "::1"},
        "fed.example.org": {"127.0.0.1", "::1"},
        "localhost": {found[4][0] for found in socket.getaddrinfo("localhost", 9092)},
    }[host]
    if "::1" in expected and not has_ipv6():
        pytest.skip("this machine has no IPv6 loopback address")
    doors = address.listen(address.interface(host), 0)
    try:
        assert reached(doors) == expected
        assert all(door.getsockname()[0] == host for door in doors) or host not in ONLY_HERE[:3]
    finally:
        for door in doors:
            door.close()


@pytest.mark.parametrize("host", ["::", "0:0:0:0:0:0:0:0"])
def test_every_interface_is_both_families_without_one_taking_the_other(host: str) -> None:
    port = address.free_port()
    doors = address.listen(host, port)
    try:
        families = {door.family for door in doors}
        assert socket.AF_INET in families
        assert (socket.AF_INET6 in families) == has_ipv6()
        assert {door.getsockname()[1] for door in doors} == {port}
    finally:
        for door in doors:
            door.close()


def test_a_family_that_this_machine_lacks_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    create = socket.create_server

    def without_ipv6(place, *, family, backlog):
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return create(place, family=family, backlog=backlog)

    monkeypatch.setattr(socket, "create_server", without_ipv6)
    [door] = address.listen("::", 0)
    door.close()
    with pytest.raises(OSError, match="not supported"):
        address.listen("::1", 0)


def test_a_port_that_one_family_has_taken_is_refused_and_nothing_stays_open() -> None:
    port = address.free_port()
    with socket.create_server(("0.0.0.0", port)), pytest.raises(OSError, match="in use"):  # noqa: S104
        address.listen("::", port)
    for door in address.listen("::", port):  # also what had been opened before
        door.close()


def test_a_port_is_free_until_somebody_listens_there() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        assert address.is_answering(port)
        assert not address.is_free(port)
    assert not address.is_answering(port)
    assert address.is_free(port)
    assert not address.is_answering(0)
    assert not address.is_free(0)
