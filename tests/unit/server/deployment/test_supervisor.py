"""What becomes of a run, with a SuperLink and a command line of Flower's that are not there."""

import pytest

from fedprompt.errors import FedpromptError, QuorumError
from fedprompt.identity import canonical_json
from server.deployment import single_instance, supervisor
from server.deployment.folder import DeploymentFolder
from server.deployment.status import summary as status
from server.deployment.supervisor import Supervisor
from server.run_folder import run_status
from tests.paperwork import deployment


class FakeSuperLink:
    """A SuperLink that lives as long as the script says."""

    made: list["FakeSuperLink"]
    script: list[object]

    def __init__(self, folder, config, lock) -> None:
        self.folder, self.ended, self.told_to_leave = folder, False, False
        self.last_output = "The end of Flower's log: empty"
        step = self.script.pop(0)
        if isinstance(step, Exception):
            raise step
        self.step = step
        self.made.append(self)

    @property
    def exit_code(self) -> int | None:
        self.step(self.folder.run)
        return -9 if self.ended or self.step is dies else None

    def expect_end(self) -> None:
        self.told_to_leave = True

    def end(self) -> None:
        self.ended = True


class FakeFlower:
    """Flower's command line: says what the SuperLink would."""

    home = address = certificate = None
    unfinished_runs: list[str]
    said: list[str]

    def __init__(self, *_: object) -> None: ...

    def connect(self) -> None: ...

    def unfinished(self) -> list[str]:
        return self.unfinished_runs

    def submit(self, app) -> str:
        self.said.append("submit")
        return "7"

    def stop(self, run: str) -> None:
        self.said.append(f"stop {run}")

    def status(self, run: str) -> str:
        return "finished:failed"


def dies(run) -> None:
    """End without a word."""


def vanishes(run) -> None:
    """Leave the ServerApp dead behind a living SuperLink."""


def commits_then_dies(server_round: int):
    def step(run) -> None:
        run.mkdir(exist_ok=True)
        with (run / "rounds.jsonl").open("ab") as file:
            file.write(canonical_json({"round": server_round}) + b"\n")
        raise FedpromptError("the connection broke")

    return step


def ends_with(error: Exception | None):
    def step(run) -> None:
        run.mkdir(exist_ok=True)
        if error:
            run_status.write_failure(run, error)
        else:
            run_status.write_success(run, "0" * 64)

    return step


@pytest.fixture
def play(tmp_path, monkeypatch):
    """Run a supervisor through a script of lives; return links, commands and pauses."""

    def run(*script: object, restarts: int = 3, unfinished: tuple[str, ...] = ()):
        pauses: list[float] = []
        FakeSuperLink.script, FakeSuperLink.made = list(script), []
        FakeFlower.said, FakeFlower.unfinished_runs = [], list(unfinished)
        monkeypatch.setattr(supervisor, "SuperLinkProcess", FakeSuperLink)
        monkeypatch.setattr(supervisor, "FlowerCli", FakeFlower)
        monkeypatch.setattr(supervisor.time, "sleep", pauses.append)
        monkeypatch.setattr(supervisor, "_ASK_FLOWER", -1.0)
        folder = deployment(tmp_path / "d")
        config = folder.config().model_copy(update={"restarts": restarts})
        try:
            Supervisor(folder, config, folder.run_settings(), None).run()
        finally:
            assert all(link.ended for link in FakeSuperLink.made)
            run.pauses = [pause for pause in pauses if pause != supervisor._POLL]
        return FakeFlower.said

    return run


def test_a_run_that_is_done_is_done(play):
    assert play(ends_with(None)) == ["submit"]


def test_F19_an_error_of_the_run_is_the_servers_and_is_not_tried_again(play):
    with pytest.raises(QuorumError, match="too few"):
        play(ends_with(QuorumError("too few")))
    assert FakeFlower.said == ["submit"]


def test_F21_a_dead_superlink_is_started_again_and_the_run_with_it(play, caplog):
    assert play(dies, dies, ends_with(None)) == ["submit"] * 3
    assert play.pauses == [1.0, 2.0]
    assert (
        "the SuperLink ended with code -9. The end of Flower's log: empty; starting" in caplog.text
    )


def test_F21_a_vanished_serverapp_is_submitted_again(play, caplog):
    assert play(vanishes, ends_with(None)) == ["submit", "stop 7", "submit"]
    assert FakeSuperLink.made[0].told_to_leave
    assert "finished:failed" in caplog.text


def test_what_an_earlier_life_left_is_stopped_first(play):
    assert play(ends_with(None), unfinished=("3", "5")) == ["stop 3", "stop 5", "submit"]


def test_a_superlink_that_does_not_start_is_tried_again(play):
    assert play(FedpromptError("port in use"), ends_with(None)) == ["submit"]


def test_trying_ends_when_nothing_comes_of_it(play):
    with pytest.raises(FedpromptError, match=r"ended 3 times .* after round -1; last: the SuperLi"):
        play(dies, dies, dies, restarts=2)
    assert play.pauses == [1.0, 2.0]


def test_a_new_round_gives_new_patience(play):
    steps = [commits_then_dies(n) for n in range(5)]
    play(*steps, ends_with(None), restarts=1)
    assert play.pauses == [1.0] * 5


def test_pauses_grow_to_a_minute(play):
    play(*[dies] * 9, ends_with(None), restarts=9)
    assert play.pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_F34_a_signal_stops_the_run_and_every_process(play):
    def signalled(run) -> None:
        FakeSuperLink.made[-1].step = lambda run: None  # the SuperLink itself goes on
        raise SystemExit(143)

    with pytest.raises(SystemExit):
        play(signalled)
    assert FakeFlower.said == ["submit", "stop 7"]


def test_F21_what_is_submitted_resumes(play, tmp_path):
    play(ends_with(None))
    submitted = (tmp_path / "d/app/pyproject.toml").read_text()
    assert '"server.resume" = true' in submitted


def test_a_crash_is_tried_again_and_then_told_on_the_last_line_and_in_the_status(play, tmp_path):
    """Whatever is raised: a run never ends without a word."""
    with pytest.raises(FedpromptError, match=r"ended 2 times .* with ValueError: why"):
        play(ends_with(ValueError("why")), ends_with(ValueError("why")), restarts=1)
    assert FakeFlower.said == ["submit"] * 2
    folder = DeploymentFolder(tmp_path / "d")
    told = status(folder)
    assert told["run"] == "failed"
    assert "ValueError: why" in told["error"]
    with single_instance.exclusive(folder.lock):
        run_status.write_failure(folder.run, ValueError("again"))
        assert status(folder)["run"] == "starting again"


def test_a_serverapp_that_is_killed_leaves_a_word_too(play, tmp_path):
    with pytest.raises(FedpromptError, match=r"left no outcome: .*was killed.*end of Flower"):
        play(vanishes, restarts=0)
    assert status(DeploymentFolder(tmp_path / "d"))["error"]
