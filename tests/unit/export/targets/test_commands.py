import json
import shutil
from pathlib import Path

import pytest

import export.runtime.safety.safe_graph
from export.targets.classifier import Exported
from export.targets.triton import write_repository
from fedprompt.backbone.clip import FrozenClip
from fedprompt.identity import sha256_bytes, sha256_file
from tests.doors import passed, refused
from tests.prompts import tuned
from tests.signing_keys import write_keys

Keys = tuple[Path, Path]


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return write_keys(tmp_path / "keys")


@pytest.fixture
def model(classifier_file: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(classifier_file, tmp_path / "c.onnx"))


def verified(model: Path, *options: object) -> str:
    report = json.loads(passed("verify", model, *options, "--json").stdout)
    assert report["probes"]["holds"]
    return str(report["signature"])


def test_a_file_is_signed_and_verified(model: Path, keys: Keys) -> None:
    assert verified(model) == "there is none"
    private, public = keys
    report = json.loads(passed("sign", model, "--key", private, "--json").stdout)
    fingerprint = sha256_bytes(public.read_bytes())
    assert report == {
        "model": str(model),
        "signature": f"{model}.sig",
        "key_sha256": fingerprint,
        "files": {".": sha256_file(model)},
    }
    assert verified(model) == "not checked: give --public-key"
    assert verified(model, "--public-key", public).startswith(
        f"holds (files: 1, key {fingerprint[:16]}"
    )
    shown = passed("verify", model, "--public-key", public).stdout
    assert "signature: holds" in shown
    assert f"wrote {model}.sig (files: 1" in passed("sign", model, "--key", private).stdout


def test_a_bundle_s_signature_covers_its_card(bundle: Path, keys: Keys) -> None:
    private, public = keys
    (bundle / "README.md").write_text("# Card\n")
    passed("sign", bundle, "--key", private)
    assert verified(bundle, "--public-key", public).startswith("holds (files: 6")
    (bundle / "README.md").write_text("# Another\n")
    refused(11, "verify", bundle, "--public-key", public, says="changed: 'README.md'")


def test_a_swap_and_a_rollback_say_that_the_signature_is_over(
    bundle: Path, keys: Keys, clip: FrozenClip, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    private, public = keys
    tuned(clip, seed=1).save(tmp_path / "artefact")
    passed("swap", bundle, tmp_path / "artefact")
    assert "signature" not in caplog.text
    passed("sign", bundle, "--key", private)
    passed("rollback", bundle)
    assert "model.sig holds no longer" in caplog.text
    says = "swap, rollback and save change a bundle"
    refused(11, "verify", bundle, "--public-key", public, says=says)
    passed("sign", bundle, "--key", private)
    passed("verify", bundle, "--public-key", public)


def test_a_model_of_triton_s(written: Exported, keys: Keys, tmp_path: Path) -> None:
    folder = write_repository(tmp_path / "colours", written.path.read_bytes())[0].parents[1]
    passed("sign", folder, "--key", keys[0])
    assert verified(folder, "--public-key", keys[1]).startswith("holds (files: 3")
    (folder / "labels.txt").unlink()
    refused(11, "verify", folder, "--public-key", keys[1], says="missing: 'labels.txt'")


def test_nothing_is_opened_before_the_signature_holds(
    model: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed("sign", model, "--key", keys[0])
    model.write_bytes(model.read_bytes() + b"\0")

    def opened(path: Path) -> bytes:
        raise AssertionError(f"{path} was opened")

    monkeypatch.setattr(export.runtime.safety.safe_graph, "read_model", opened)
    refused(11, "verify", model, "--public-key", keys[1], says="not what was signed")


def test_what_is_wrong_has_its_exit_code(model: Path, keys: Keys, tmp_path: Path) -> None:
    private, public = keys
    other = write_keys(tmp_path / "other")[1]
    refused(11, "verify", model, "--public-key", public, says="c.onnx.sig does not exist")
    refused(2, "sign", model, "--key", public, says="is no private key")
    refused(2, "sign", model, "--key", tmp_path / "no.pem", says="could not be read")
    refused(11, "sign", tmp_path / "no.onnx", "--key", private, says="does not exist")
    passed("sign", model, "--key", private)
    refused(11, "verify", model, "--public-key", other, says="made with another key")
    refused(2, "verify", model, "--public-key", private, says="is no public key")
    Path(f"{model}.sig").write_text("{}")
    refused(
        11, "verify", model, "--public-key", public, says="no signature by a key, or is damaged"
    )
