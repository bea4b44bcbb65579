import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from export.runtime.open_vocabulary.bundle import Bundle
from export.targets.signing import check, sign
from fedprompt.errors import ConfigError, FedpromptError, GraphError, StorageError
from fedprompt.identity import sha256_bytes, sha256_file
from tests.signing_keys import CURVES, write_keys

Keys = tuple[Path, Path]
CLI = Path(sys.executable).parent / "model_signing"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return write_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files of a Triton model, none of which is a graph: none is opened."""
    folder = tmp_path / "model"
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.onnx").write_bytes(b"graph" * 100)
    (folder / "labels.txt").write_text("cat\ndog\n")
    (folder / "config.pbtxt").write_text("name: 'model'\n")
    return folder


def test_a_folder_is_signed_file_by_file(folder: Path, keys: Keys) -> None:
    place = sign(folder, keys[0])
    assert place == folder / "model.sig"
    found = check(folder, keys[1])
    names = ("1/model.onnx", "labels.txt", "config.pbtxt")
    assert found.files == {name: sha256_file(folder / name) for name in names}
    assert found.key == sha256_bytes(keys[1].read_bytes())


def test_a_file_is_signed_alone(classifier_file: Path, keys: Keys, tmp_path: Path) -> None:
    path = Path(shutil.copy(classifier_file, tmp_path / "c.onnx"))
    assert sign(path, keys[0]) == tmp_path / "c.onnx.sig"
    assert check(path, keys[1]).files == {".": sha256_file(path)}
    moved = path.rename(tmp_path / "elsewhere.onnx")
    (tmp_path / "c.onnx.sig").rename(tmp_path / "elsewhere.onnx.sig")
    assert check(moved, keys[1])
    moved.write_bytes(moved.read_bytes() + b"\0")
    with pytest.raises(GraphError, match=r"not what was signed \(changed: 'elsewhere\.onnx'\)"):
        check(moved, keys[1])


@pytest.mark.parametrize("curve", list(CURVES))
def test_every_curve_will_do(folder: Path, tmp_path: Path, curve: str) -> None:
    private, public = write_keys(tmp_path / curve, curve)
    sign(folder, private)
    assert check(folder, public)


def test_a_second_signature_takes_the_place_of_the_first(
    folder: Path, keys: Keys, tmp_path: Path
) -> None:
    sign(folder, write_keys(tmp_path / "old")[0])
    sign(folder, keys[0])
    assert check(folder, keys[1])


def test_changed_missing_and_added_files_are_named(folder: Path, keys: Keys) -> None:
    sign(folder, keys[0])
    (folder / "labels.txt").write_text("dog\ncat\n")
    (folder / "config.pbtxt").unlink()
    (folder / ".git").mkdir()
    (folder / ".git" / "hook").touch()
    told = r"\(changed: 'labels\.txt'; missing: 'config\.pbtxt'; added: '\.git/hook'\)"
    with pytest.raises(GraphError, match=told):
        check(folder, keys[1])


def test_each_kind_of_change_is_enough(folder: Path, keys: Keys) -> None:
    sign(folder, keys[0])
    graph = folder / "1" / "model.onnx"
    whole = graph.read_bytes()
    for position in range(0, len(whole), 99):
        graph.write_bytes(whole[:position] + b"!" + whole[position + 1 :])
        with pytest.raises(GraphError, match=r"changed: '1/model\.onnx'"):
            check(folder, keys[1])
    graph.unlink()
    with pytest.raises(GraphError, match=r"missing: '1/model\.onnx'"):
        check(folder, keys[1])
    graph.write_bytes(whole)
    (folder / "2").mkdir()
    shutil.copy(graph, folder / "2" / "model.onnx")  # which Triton would serve
    with pytest.raises(GraphError, match=r"added: '2/model\.onnx'"):
        check(folder, keys[1])
    shutil.rmtree(folder / "2")
    assert check(folder, keys[1])


def test_many_changes_are_counted(folder: Path, keys: Keys) -> None:
    sign(folder, keys[0])
    for number in range(7):
        (folder / f"{number}\x1b").touch()
    with pytest.raises(GraphError, match=r"added: '0\\x1b', .*'4\\x1b' and 2 more"):
        check(folder, keys[1])


def test_links_are_refused(folder: Path, keys: Keys) -> None:
    sign(folder, keys[0])
    real = (folder / "labels.txt").rename(folder.parent / "labels.txt")
    (folder / "labels.txt").symlink_to(real)
    with pytest.raises(GraphError, match="symlink"):
        check(folder, keys[1])
    with pytest.raises(GraphError, match=r"could not be signed: .*symlink"):
        sign(folder, keys[0])


def test_the_caller_s_own_link_is_followed(folder: Path, keys: Keys, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(folder)
    sign(tmp_path / "current", keys[0])
    assert check(tmp_path / "current", keys[1]) == check(folder, keys[1])


def test_another_key_is_refused(folder: Path, keys: Keys, tmp_path: Path) -> None:
    sign(folder, keys[0])
    _, other = write_keys(tmp_path / "other")
    with pytest.raises(GraphError, match="made with another key") as caught:
        check(folder, other)
    assert sha256_bytes(other.read_bytes())[:16] in str(caught.value)


def test_a_signature_that_claims_the_key_is_refused(
    folder: Path, keys: Keys, tmp_path: Path
) -> None:
    mallory, _ = write_keys(tmp_path / "mallory")
    place = sign(folder, mallory)
    forged = json.loads(place.read_text())
    forged["verificationMaterial"]["publicKey"]["hint"] = sha256_bytes(keys[1].read_bytes())
    place.write_text(json.dumps(forged))
    with pytest.raises(GraphError, match="does not fit what it signs"):
        check(folder, keys[1])


def test_a_statement_of_another_model_is_refused(folder: Path, keys: Keys) -> None:
    """The signature of one statement under another one, which lists the files as they are now."""
    place = sign(folder, keys[0])
    old = json.loads(place.read_text())
    (folder / "labels.txt").write_text("dog\ncat\n")
    new = json.loads(sign(folder, keys[0]).read_text())
    new["dsseEnvelope"]["signatures"] = old["dsseEnvelope"]["signatures"]
    place.write_text(json.dumps(new))
    with pytest.raises(GraphError, match="does not fit what it signs"):
        check(folder, keys[1])


@settings(max_examples=60)
@given(st.floats(0, 1), st.integers(0, 40), st.binary(max_size=40))
def test_no_edit_of_a_signature_lets_a_change_pass(
    tmp_path_factory: pytest.TempPathFactory, keys: Keys, where: float, cut: int, put: bytes
) -> None:
    folder = tmp_path_factory.mktemp("edit")
    (folder / "config.pbtxt").write_text("one")
    place = sign(folder, keys[0])
    (folder / "config.pbtxt").write_text("two")
    whole = place.read_bytes()
    begin = round(where * len(whole))
    place.write_bytes(whole[:begin] + put + whole[begin + cut :])
    with pytest.raises(GraphError):
        check(folder, keys[1])


@pytest.mark.parametrize("part", ["signatures", "payload", "payloadType"])
@pytest.mark.parametrize("value", [None, [], {}, "", 0, [{}], "e30="])
def test_a_damaged_envelope_is_refused(folder: Path, keys: Keys, part: str, value: object) -> None:
    place = sign(folder, keys[0])
    damaged = json.loads(place.read_text())
    damaged["dsseEnvelope"][part] = value
    place.write_text(json.dumps(damaged))
    with pytest.raises(GraphError, match=r"model\.sig is"):
        check(folder, keys[1])


def test_a_missing_signature_is_an_error_where_one_was_asked_for(folder: Path, keys: Keys) -> None:
    with pytest.raises(GraphError, match=r"model\.sig does not exist"):
        check(folder, keys[1])


def test_what_is_not_ours_is_not_signed(tmp_path: Path, keys: Keys) -> None:
    with pytest.raises(GraphError, match="holds none of"):
        sign(tmp_path, keys[0])
    with pytest.raises(GraphError, match="does not exist"):
        sign(tmp_path / "no.onnx", keys[0])


def test_a_key_is_not_sent_out_with_what_it_signs(folder: Path, keys: Keys) -> None:
    inside = Path(shutil.copy(keys[0], folder / "1" / "private.pem"))
    with pytest.raises(ConfigError, match="would go out with it"):
        sign(folder, inside)
    (folder.parent / "link.pem").symlink_to(inside)
    with pytest.raises(ConfigError, match="would go out with it"):
        sign(folder, folder.parent / "link.pem")


def _private(
    key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey,
) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


OTHERS = {
    "rsa": rsa.generate_private_key(65537, 2048),
    "ed25519": ed25519.Ed25519PrivateKey.generate(),
    "curve": ec.generate_private_key(ec.SECP256K1()),
}


@pytest.mark.parametrize("kind", [*OTHERS, "public", "text", "empty"])
def test_what_is_no_private_key_is_refused(
    folder: Path, keys: Keys, tmp_path: Path, kind: str
) -> None:
    data = {"public": keys[1].read_bytes(), "text": b"no key", "empty": b""}
    wrong = tmp_path / "wrong.pem"
    wrong.write_bytes(_private(OTHERS[kind]) if kind in OTHERS else data[kind])
    with pytest.raises(ConfigError, match=r"wrong\.pem is no private key on P-256"):
        sign(folder, wrong)
    assert not (folder / "model.sig").exists()


@pytest.mark.parametrize("kind", [*OTHERS, "private", "text", "empty"])
def test_what_is_no_public_key_is_refused(
    folder: Path, keys: Keys, tmp_path: Path, kind: str
) -> None:
    sign(folder, keys[0])
    data = {"private": keys[0].read_bytes(), "text": b"no key", "empty": b""}
    wrong, public = tmp_path / "wrong.pem", PublicFormat.SubjectPublicKeyInfo
    wrong.write_bytes(
        OTHERS[kind].public_key().public_bytes(Encoding.PEM, public)
        if kind in OTHERS
        else data[kind]
    )
    with pytest.raises(ConfigError, match=r"wrong\.pem is no public key on P-256") as caught:
        check(folder, wrong)
    assert "PRIVATE" not in str(caught.value)


def test_a_key_with_a_password_or_that_is_missing_is_named(
    folder: Path, keys: Keys, tmp_path: Path
) -> None:
    locked, _ = write_keys(tmp_path / "locked", password=b"secret")
    with pytest.raises(ConfigError, match="has a password"):
        sign(folder, locked)
    with pytest.raises(ConfigError, match=r"no\.pem could not be read: No such file"):
        sign(folder, tmp_path / "no.pem")
    sign(folder, keys[0])
    with pytest.raises(ConfigError, match=r"no\.pem could not be read: No such file"):
        check(folder, tmp_path / "no.pem")


def test_a_disk_that_refuses_is_told_and_the_old_signature_stays(
    folder: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sign(folder, keys[0]).read_bytes()

    def full(path: Path, data: bytes) -> None:
        raise StorageError(f"{path} could not be written")

    monkeypatch.setattr("export.targets.signing.write_atomic", full)
    with pytest.raises(StorageError):
        sign(folder, keys[0])
    assert (folder / "model.sig").read_bytes() == before


def test_a_swapped_bundle_is_explained(
    bundle: Path, keys: Keys, caplog: pytest.LogCaptureFixture
) -> None:
    sign(bundle, keys[0])
    assert check(bundle, keys[1])
    opened = Bundle(bundle)
    opened.commit(opened.state(1))
    assert "model.sig holds no longer" in caplog.text
    with pytest.raises(GraphError, match=r"changed: 'bundle\.json'.*swap, rollback and save"):
        check(bundle, keys[1])
    sign(bundle, keys[0])
    assert check(bundle, keys[1])


@pytest.mark.parametrize("missing", ["model_signing", "OpenSSL"])
def test_without_the_extra_its_name_is_said(
    folder: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    loaded = [name for name in sys.modules if name.partition(".")[0] == "model_signing"]
    for name in loaded:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    for call in (lambda: sign(folder, keys[0]), lambda: check(folder, keys[1])):
        with pytest.raises(FedpromptError, match=r"pip install 'fedprompt\[signing\]'") as caught:
            call()
        assert f"{missing!r}" in str(caught.value)


def test_nothing_is_loaded_before_it_is_needed() -> None:
    code = "import sys, export.targets.signing, export.runtime.commands; "
    code += "import export.targets.commands; "
    code += "print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"model_signing", "sigstore", "cryptography", "onnxruntime"} & {*done.stdout.split()}


def test_openssf_s_own_command_agrees(folder: Path, keys: Keys) -> None:
    """Both ways: it accepts ours, and refuses it after a change; ours accepts its."""

    def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([CLI, *map(str, arguments)], capture_output=True, text=True)

    verify = ("verify", "key", folder, "--signature", folder / "model.sig", "--public_key", keys[1])
    sign(folder, keys[0])
    assert run(*verify).returncode == 0
    labels = (folder / "labels.txt").read_text()
    (folder / "labels.txt").write_text("dog\ncat\n")
    assert run(*verify).returncode != 0
    (folder / "labels.txt").write_text(labels)
    place = folder / "model.sig"
    ours = place.read_bytes()
    assert not run("sign", "key", folder, "--signature", place, "--private_key", keys[0]).returncode
    assert place.read_bytes() != ours
    assert check(folder, keys[1]).files == {
        name: sha256_file(folder / name) for name in ("1/model.onnx", "labels.txt", "config.pbtxt")
    }
