import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedprompt import address
from fedprompt.errors import ConfigError


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
    assert text in (f"{host}:{port}", f"[{host}]:{port}") or text.rpartition(":")[2][0] == "0"


@pytest.mark.parametrize(
    ("host", "expected"),
    [("localhost", True), ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True),
     ("::", False), ("192.0.2.7", False), ("localhost.example.org", False), ("", False)],
)  # fmt: skip
def test_loopback_is_told_from_what_others_reach(host, expected):
    assert address.is_loopback(host) is expected
