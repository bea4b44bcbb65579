"""How a run ended, told to another process."""

import json

import pytest

from fedprompt.errors import FedpromptError, QuorumError, StorageError
from server.run_folder import run_status
from server.run_folder.checkpoint import _assemble


def test_success_carries_the_artefacts_hash(tmp_path):
    run_status.write_success(tmp_path, "abc")
    assert run_status.read(tmp_path) == run_status.Outcome(artefact="abc")
    written = json.loads((tmp_path / "outcome.json").read_bytes())
    assert written == {"artefact": "abc", "error": None}
    run_status.raise_failure(tmp_path)


def test_a_failure_is_raised_again_as_what_it_was(tmp_path):
    run_status.write_failure(tmp_path, QuorumError("2 of 5 sites"))
    with pytest.raises(QuorumError, match="2 of 5 sites") as caught:
        run_status.raise_failure(tmp_path)
    assert caught.value.exit_code == 8


def test_an_unknown_error_is_still_an_error(tmp_path):
    class OddError(FedpromptError):
        pass

    run_status.write_failure(tmp_path, OddError("odd"))
    with pytest.raises(FedpromptError, match="odd"):
        run_status.raise_failure(tmp_path)


def test_a_killed_run_left_nothing(tmp_path):
    run_status.write_success(tmp_path, "abc")
    run_status.clear(tmp_path)
    assert run_status.read(tmp_path) is None
    run_status.raise_failure(tmp_path)


@pytest.mark.parametrize("junk", [b"", b"[]", b"{"])
def test_junk_counts_as_nothing(tmp_path, junk):
    (tmp_path / "outcome.json").write_bytes(junk)
    assert run_status.read(tmp_path) is None


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(StorageError, match="give another --output folder"):
        run_status.clear(tmp_path / "run")


def test_an_unexpected_error_leaves_kind_place_cause_and_site(tmp_path):
    try:
        try:
            _assemble({"run": "r", "round": 1}, {})
        except Exception as error:
            with run_status.blaming(3):
                raise OSError("the disk\nis gone") from error
    except OSError as error:
        run_status.write_failure(tmp_path, error)
    told = run_status.read(tmp_path)
    assert told.error == "OSError"
    assert told.crashed
    first, second = told.message.split("; caused by ")
    assert first.startswith("OSError: the disk is gone (at ")
    assert "test_run_status.py:" in first
    assert first.endswith(", while reading what site 3 sent")
    assert second.startswith("KeyError: 'order' (at server/")
    with pytest.raises(FedpromptError, match="OSError: the disk is gone") as caught:
        run_status.raise_failure(tmp_path)
    assert caught.value.exit_code == 1


def test_an_error_without_a_place_is_told_all_the_same():
    assert run_status.describe(ValueError("why")) == "ValueError: why"
    assert run_status.describe(ValueError("x" * 5000)) == f"ValueError: {'x' * 296} ..."


def test_our_own_errors_are_no_crash(tmp_path):
    run_status.write_failure(tmp_path, QuorumError("2 of 5 sites"))
    assert run_status.read(tmp_path).crashed is False
