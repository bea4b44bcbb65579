from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedprompt.errors import ConfigError
from fedprompt.protocol import certificates
from server.deployment import issuer
from tests.paperwork import authority, crl

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


def made(days: int = 100, *hosts: str):
    key, ca = authority()
    names = hosts or ("fed.example.org",)
    return issuer.server_certificate(issuer.new_key(), ca, key, names, days, NOW)


@pytest.mark.parametrize(
    ("after", "fault", "warning"),
    [
        (timedelta(days=0), None, None),
        (timedelta(days=69), None, None),
        (timedelta(days=71), None, "expires in 29 days"),
        (timedelta(days=99, hours=23), None, "expires in 0 days"),
        (timedelta(days=100, seconds=1), "expired on 2026-09-09", None),
        (timedelta(minutes=-59), None, None),  # a clock that is behind
        (timedelta(hours=-2), "not valid before 2026-06-01 11:00 UTC, here it is", None),
    ],
)
def test_F16_dates_decide_and_the_warning_comes_30_days_ahead(after, fault, warning):
    told = certificates.validity(made(), "fed.example.org", NOW + after)
    assert fault in told.fault if fault else told.fault is None
    assert warning in told.warning if warning else told.warning is None


@pytest.mark.parametrize(
    "host", ["fed.example.org", "FED.example.org.", "localhost", "127.0.0.1", "::1", "0:0::1"]
)
def test_the_host_and_this_machine_are_in_the_certificate(host):
    assert certificates.validity(made(), host, NOW).fault is None


@pytest.mark.parametrize("host", ["example.org", "192.0.2.7", "a.fed.example.org", ""])
def test_F16_another_host_is_refused_and_the_right_ones_are_named(host):
    fault = certificates.validity(made(), host, NOW).fault
    assert "is for 127.0.0.1, ::1, fed.example.org, localhost, not for" in fault


def test_an_address_is_in_the_certificate_as_an_address():
    found = made(10, "192.0.2.7", "2001:db8::7")
    assert certificates.validity(found, "2001:0db8::0:7", NOW).fault is None
    assert certificates.hosts(found) >= {"192.0.2.7", "2001:db8::7"}


def test_a_certificate_without_names_is_for_nobody():
    assert certificates.hosts(authority()[1]) == set()
    assert "is for nobody" in certificates.validity(authority()[1], "localhost").fault


def test_the_revocation_list_tells_serials_and_whose_it_is():
    ca = issuer.pem(authority()[1]).decode()
    listed = certificates.revocations(crl(7, 9), ca)
    assert sorted(entry.serial_number for entry in listed) == [7, 9]
    other = issuer.pem(authority("another CA")[1]).decode()
    with pytest.raises(ConfigError, match="not signed by the CA"):
        certificates.revocations(crl(7), other)


@given(st.text(max_size=200))
def test_any_text_is_refused_in_one_line(text):
    for door in (certificates.certificate, certificates.private_key, certificates.fingerprint):
        with pytest.raises(ConfigError) as refused:
            door(text)
        assert "\n" not in str(refused.value)


# made by ssh-keygen -t ecdsa -b 384 with a password; nothing is opened by it
LOCKED = """\
-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAACmFlczI1Ni1jdHIAAAAGYmNyeXB0AAAAGAAAABAtKxVnYG
dgB2alM1f5aIxYAAAAEAAAAAEAAACIAAAAE2VjZHNhLXNoYTItbmlzdHAzODQAAAAIbmlz
dHAzODQAAABhBJpAf67m96K5rz9RYiHECxpmE1YxSGS+ds8VTxQoGfi/xH73DJ9ao+FS0m
MKhLMhFZ/m0a/As/yhc6VjIJ6nAxhFkbtgGR5gGLL7znw3pjh8oBxsFKhIya5jU89J6NOD
DgAAANC4xIsFqcC22yXthX5ZxUP5O3Bv4trEsZmrXC2VAmd4ALVz6I9iV7da6WHfZl3duq
zjOErP0i9zHsnOiNJ58EJVBvnaSgQxqdDfQkVeWKZ14WlypS+ylWEL4Ain0jJhb8quFcQn
ZxrVw+Yb36w175uSp7GobATYbh9pFVlOMdnzhXgM3hZNVbjBSZ9hryLEFA+eE3pIfBjdrK
2wk4TebY3H4BtbJGhNTu18RlfPwLEn+d4bI4zDW70ZmDDG+FWPKV72bfxUa3OuW4k/LFC1
xw2q
-----END OPENSSH PRIVATE KEY-----
"""


def test_a_key_with_a_password_is_refused_without_quoting_it():
    with pytest.raises(ConfigError, match="expected an OpenSSH key") as refused:
        certificates.private_key(LOCKED)
    assert refused.value.__cause__ is None
