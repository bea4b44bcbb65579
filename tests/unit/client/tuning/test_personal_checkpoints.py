import logging
from pathlib import Path

import numpy as np
import pytest

from client.tuning.personal_checkpoints import KEPT, LocalState
from fedprompt.errors import StorageError
from fedprompt.prompt_state import PromptState
from server.run_folder import checkpoint


def state(root: Path, run: str = "abc", site: int = 3) -> LocalState:
    return LocalState(root, run, site)


def of_round(number: int) -> PromptState:
    return PromptState({"ctx.B": np.full((1, 4), number)})


def round_of(found: PromptState | None) -> int:
    return 0 if found is None else int(found["ctx.B"][0, 0])


def trained(root: Path, *rounds: int) -> LocalState:
    for number in rounds:
        state(root).commit(number, of_round(number))
    return state(root)


def test_a_round_starts_at_the_last_one_before_it(tmp_path: Path) -> None:
    assert state(tmp_path).before(1) is None
    found = trained(tmp_path, 1, 2, 5)
    assert [round_of(found.before(number)) for number in (1, 2, 3, 5, 6, 9)] == [0, 1, 2, 2, 5, 5]


def test_a_round_that_is_tuned_again_replaces_its_first_try_and_what_followed(
    tmp_path: Path,
) -> None:
    found = trained(tmp_path, 1, 2, 3)
    found.commit(2, of_round(20))
    assert [round_of(found.before(number)) for number in (2, 3, 9)] == [1, 20, 20]


def test_sites_and_runs_are_kept_apart(tmp_path: Path) -> None:
    trained(tmp_path, 1)
    assert state(tmp_path, site=4).before(9) is None
    assert state(tmp_path, run="abd").before(9) is None


def test_a_runs_name_cannot_leave_the_folder(tmp_path: Path) -> None:
    root = tmp_path / "local"
    state(root, run="../../elsewhere").commit(1, of_round(1))
    assert {path.parents[2] for path in tmp_path.rglob("*.safetensors")} == {root}


def test_as_many_rounds_are_kept_as_a_server_can_fall_back_by(tmp_path: Path) -> None:
    found = trained(tmp_path, *range(1, 10))
    assert len(list(tmp_path.rglob("*.safetensors"))) == KEPT
    oldest = 8 - (checkpoint.KEEP - 1)  # round 9 was under way, 8 and 7 are damaged
    assert round_of(found.before(oldest + 1)) == oldest


def test_a_run_begins_without_what_lies_there(tmp_path: Path) -> None:
    found = trained(tmp_path, 3, 4)
    found.forget(0)
    assert found.before(9) is None


@pytest.mark.parametrize("spoil", [lambda d: d[:-3], lambda d: d[:-3] + b"\0\0\1", lambda d: b""])
def test_f22_a_damaged_file_is_passed_over_and_named(
    tmp_path: Path, spoil, caplog: pytest.LogCaptureFixture
) -> None:
    found = trained(tmp_path, 1, 2)
    newest = max(tmp_path.rglob("*.safetensors"))
    newest.write_bytes(spoil(newest.read_bytes()))
    with caplog.at_level(logging.WARNING):
        assert round_of(found.before(3)) == 1
    assert newest.name in caplog.text


def test_what_is_not_a_state_is_left_alone(tmp_path: Path) -> None:
    found = trained(tmp_path, 1)
    strange = found.folder / "round-of-applause.txt"
    strange.write_text("x", encoding="utf-8")
    found.forget(0)
    assert strange.exists()
    assert found.before(9) is None


def test_f23_a_full_disk_is_told_and_the_round_before_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = trained(tmp_path, 1)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("fedprompt.storage.os.fsync", full)
        with pytest.raises(StorageError, match="No space left"):
            found.commit(2, of_round(2))
    assert round_of(found.before(9)) == 1
