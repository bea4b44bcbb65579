"""An invitation comes back as it was packed, and no changed byte is believed."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedprompt.errors import ConfigError
from fedprompt.identity import canonical_json
from fedprompt.protocol import invitation as invitations
from fedprompt.protocol.invitation import MAX_BYTES, pack, read, read_file, seal
from server.deployment import issuer
from tests.paperwork import authority, crl, invitation

KEY = authority()[0]
PACKED = pack(invitation(), KEY)
FIELDS = json.loads(PACKED)

names = st.from_regex(invitations.SITE_NAME, fullmatch=True)
words = st.text(st.characters(codec="utf-8", categories=["L", "N", "P"]), min_size=1, max_size=30)


@settings(max_examples=40)
@given(
    name=names,
    number=st.integers(0, 2**31 - 1),
    classes=st.lists(words, min_size=2, max_size=20, unique=True).map(tuple),
    template=words.filter(lambda text: not set("{}") & set(text)).map(lambda text: text + " {}"),
)
def test_a_invitation_comes_back_as_it_was_packed(name, number, classes, template):
    made = invitation(name=name, number=number, classes=classes, template=template)
    assert read(pack(made, KEY)) == made


def test_the_file_is_canonical_small_and_hides_nothing_but_the_key_in_its_repr():
    assert canonical_json(FIELDS) == PACKED
    assert len(PACKED) < 4000
    assert FIELDS["key"] in PACKED.decode().replace("\\n", "\n")
    assert "PRIVATE KEY" not in repr(invitation())


@settings(max_examples=300)
@given(st.integers(0, len(PACKED) - 1), st.integers(1, 255))
def test_no_changed_byte_is_believed(place, difference):
    changed = bytearray(PACKED)
    changed[place] ^= difference
    with pytest.raises(ConfigError):
        read(bytes(changed))


@given(st.integers(0, len(PACKED) - 1))
def test_no_truncated_invitation_is_believed(length):
    with pytest.raises(ConfigError):
        read(PACKED[:length])


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(data):
    with pytest.raises(ConfigError):
        read(data)


VALID = {
    "name": "elsewhere", "number": 4, "address": "other.example.org:9092", "crl": crl(7),
    "key": issuer.ssh_pair(issuer.new_key())[0], "classes": ["ill", "healthy"],
    "template": "a scan of {}.", "method": "coop", "tokenizer": "2" * 64, "version": "9.9",
    "backbone": FIELDS["backbone"] | {"sha256": "3" * 64}, "issued": "2026-01-02T03:04:06+00:00",
    "ca": issuer.pem(authority("another CA")[1]).decode(), "signature": "AAAA",
}  # fmt: skip


@pytest.mark.parametrize("field", sorted(FIELDS.keys() - {"format"}))
def test_a_field_changed_to_another_good_value_breaks_the_signature(field):
    assert VALID[field] != FIELDS[field]
    with pytest.raises(ConfigError, match=r"signature is not its CA's"):
        read(canonical_json(FIELDS | {field: VALID[field]}))


@pytest.mark.parametrize("field", sorted(FIELDS))
def test_a_missing_field_is_refused(field):
    with pytest.raises(ConfigError):
        read(canonical_json({key: value for key, value in FIELDS.items() if key != field}))


def signed(**changes: object) -> bytes:
    """Return an invitation with unchecked fields whose signature is right."""
    return seal(invitation().model_dump(mode="json") | changes, KEY)


def weak_key() -> str:
    from cryptography.hazmat.primitives.asymmetric import ec

    return issuer.ssh_pair(ec.generate_private_key(ec.SECP256R1()))[0]


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("name", "../etc/passwd", "name is refused"),
        ("name", "", "name is refused"),
        ("name", "a\n", "name is refused"),
        ("number", -1, "number is refused"),
        ("number", True, "number is refused"),
        ("number", 2**31, "number is refused"),
        ("address", "http://x", "expected host:port"),
        ("ca", "no certificate", "certificate cannot be read"),
        ("crl", "no list", "revocation list cannot be read"),
        ("key", "no key", "expected an OpenSSH key"),
        ("key", weak_key(), "not one of curve P-384"),
        ("classes", ["one"], "expected at least two"),
        ("classes", ["one", "one"], "occur twice"),
        ("classes", ["one", 2], "classes.1 is refused"),
        ("classes", "ab", "classes is refused"),
        ("template", "no place", 'with "{}" once'),
        ("template", "{} {}", 'with "{}" once'),
        ("template", "{0} {}", 'with "{}" once'),
        ("method", "DIP!", "method is refused"),
        ("backbone", {"name": "embedded"}, "backbone.pretrained is refused"),
        ("backbone", FIELDS["backbone"] | {"sha256": "0"}, "backbone.sha256 is refused"),
        ("backbone", FIELDS["backbone"] | {"more": 1}, "backbone.more is refused"),
        ("tokenizer", "G" * 64, "tokenizer is refused"),
        ("version", "0.1 && rm", "version is refused"),
        ("issued", "yesterday", "issued is refused"),
        ("issued", "2026-01-02T03:04:05", "no time zone"),
    ],
)
def test_a_signed_invitation_with_a_bad_field_is_refused_and_the_field_is_named(field, value, said):
    with pytest.raises(ConfigError, match=said.replace("{", r"\{").replace("}", r"\}")):
        read(signed(**{field: value}))


def test_another_format_is_told_apart_from_damage():
    with pytest.raises(ConfigError, match="has format 2, this version reads 1; use the same"):
        read(canonical_json(FIELDS | {"format": 2}))


def test_an_unknown_field_is_refused_even_if_it_is_signed():
    with pytest.raises(ConfigError, match="command is refused"):
        read(signed(command="rm"))


def test_a_doubled_field_is_refused():
    with pytest.raises(ConfigError, match="changed on the way"):
        read(PACKED.replace(b'"number":3', b'"number":9,"number":3'))


def test_what_others_than_the_ca_signed_is_refused():
    with pytest.raises(ConfigError, match=r"signature is not its CA's"):
        read(pack(invitation(), issuer.new_key()))


def test_a_list_of_another_ca_is_refused():
    key, ca = authority("another CA")
    foreign = issuer.pem(issuer.revocation_list(ca, key, [])).decode()
    with pytest.raises(ConfigError, match="not signed by the CA"):
        read(pack(invitation(crl=foreign), KEY))


def test_a_server_certificate_is_no_ca():
    key, ca = authority()
    leaf = issuer.server_certificate(issuer.new_key(), ca, key, ["localhost"])
    with pytest.raises(ConfigError, match="not of a CA"):
        read(signed(ca=issuer.pem(leaf).decode()))


def test_a_huge_file_is_refused_before_it_is_parsed(tmp_path, monkeypatch):
    path = tmp_path / "huge.fedprompt"
    path.write_bytes(b"[" * (MAX_BYTES + 10))
    monkeypatch.setattr(json, "loads", lambda _: pytest.fail("it was parsed"))
    with pytest.raises(ConfigError, match=r"larger than 1,048,576 bytes"):
        read_file(path)


def test_a_file_that_cannot_be_read_says_so(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        read_file(tmp_path / "none.fedprompt")
    with pytest.raises(ConfigError, match="Is a directory"):
        read_file(tmp_path)


def test_the_fingerprint_is_the_cas_and_nobody_elses():
    assert invitation().fingerprint == invitation(name="other").fingerprint
    other = issuer.pem(authority("another CA")[1]).decode()
    assert invitation(ca=other).fingerprint != invitation().fingerprint
    assert len(invitation().fingerprint) == 64
