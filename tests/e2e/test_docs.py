"""Run every command of the docs, in order: as a reader would, and faster in one process."""

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from client.deployment.policy import Policy
from fedprompt.settings.run_config import load_flat
from tests.doors import passed

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"```(sh|python|toml)\n(.*?)```", re.S)
POLICY = ROOT / "examples" / "site-policy.toml"  # a site's, no run's
WAIT = 600  # seconds a server may take for its rounds
PAGES = ["README.md", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").glob("*.md"))]


def photos(folder: Path) -> None:
    """Draw 3 x 24 pictures that differ by class in colour and by noise."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(["cat", "dog", "horse"]):
        (folder / name).mkdir(parents=True)
        for number in range(24):
            pixels = rng.integers(0, 120, (40, 48, 3), dtype=np.uint8)
            pixels[..., label] += 120
            Image.fromarray(pixels).save(folder / name / f"{number}.png")


class Shell:
    """Run a page's commands one after the other, those that end in `&` beside the rest."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.background: list[tuple[str, subprocess.Popen[bytes]]] = []
        self.environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "FEDPROMPT_CACHE": str(folder / "cache"),
        }

    def run(self, command: str) -> None:
        verb, *rest = command.split()
        if command.endswith("&"):
            self._start(command.removesuffix("&").strip())
        elif verb == "wait":
            self._wait(rest)
        elif verb == "kill":
            for _, process in self._jobs(rest):
                process.send_signal(signal.SIGTERM)
            self._wait(rest)
        else:
            done = subprocess.run(  # noqa: S602 (the commands are our own docs')
                command, shell=True, cwd=self.folder, env=self.environment, capture_output=True,
                text=True,
            )  # fmt: skip
            assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"

    def _start(self, command: str) -> None:
        with self._log().open("wb") as log:
            process = subprocess.Popen(  # noqa: S602
                f"exec {command}", shell=True, cwd=self.folder, env=self.environment,
                stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        self.background.append((command, process))

    def _jobs(self, named: list[str]) -> list[tuple[str, "subprocess.Popen[bytes]"]]:
        """Return the jobs of ``%1 %2``, counted as a shell does; all of them if none is named."""
        return [self.background[int(name.removeprefix("%")) - 1] for name in named] or list(
            self.background
        )

    def _wait(self, named: list[str]) -> None:
        for command, process in self._jobs(named):
            code = process.wait(WAIT)
            assert code == 0, f"{command}: exit code {code}\n{self._told()}"

    def _log(self) -> Path:
        return self.folder / f"background-{len(self.background)}.log"

    def _told(self) -> str:
        logs = sorted(self.folder.glob("background-*.log"))
        return "\n".join(f"{log.name}: {log.read_text(errors='replace')}" for log in logs)

    def end(self) -> None:
        """Leave no process behind, whatever went wrong."""
        for _, process in reversed(self.background):
            process.terminate()
        for _, process in self.background:
            process.wait(60)


def commands(block: str) -> list[str]:
    """Return a shell block's commands; ``make`` is run by test_demo.py and by CI itself."""
    lines = [line.partition(" #")[0].strip() for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith(("make", "#"))]


def needs_processes(block: str) -> bool:
    """Tell whether a shell block starts something that stays, or uses what stays."""
    return any(c.startswith("flower-") or c.endswith("&") for c in commands(block))


def blocks_of(page: str, folder: Path) -> list[tuple[str, str]]:
    """Return a page's blocks as (kind, text), and draw the photos if they are read."""
    blocks: list[tuple[str, str]] = BLOCK.findall((ROOT / page).read_text())
    if any(kind != "toml" and "photos" in text for kind, text in blocks):
        photos(folder / "photos")
    return blocks


def write_settings(folder: Path, text: str) -> None:
    """Write a TOML block whose first line is a file's name."""
    if name := re.match(r"# (\S+\.toml)\n", text):
        (folder / name[1]).write_text(text)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_the_page_works(page: str, tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    try:
        for kind, text in blocks_of(page, tmp_path):
            if kind == "toml":
                write_settings(tmp_path, text)
            elif kind == "python":
                (tmp_path / "block.py").write_text(text)
                shell.run(f"{sys.executable} block.py")
            else:
                for command in commands(text):
                    shell.run(command)
        left = [command for command, process in shell.background if process.poll() is None]
        assert not left, f"the page leaves behind what it started: {left}"
    finally:
        shell.end()


@pytest.mark.filterwarnings("default")  # a reader sees the warnings of other libraries, and goes on
@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_the_page_work_in_this_process(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run all but the blocks that start processes, without a new Python for each command."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEDPROMPT_CACHE", str(tmp_path / "cache"))
    shell = Shell(tmp_path)
    for kind, text in blocks_of(page, tmp_path):
        if kind == "toml":
            write_settings(tmp_path, text)
        elif kind == "python":
            exec(compile(text, page, "exec"), {"__name__": "__main__"})  # noqa: S102 (our docs')
        elif not needs_processes(text):
            for command in commands(text):
                program, *arguments = shlex.split(command)
                if program == "fedprompt":
                    passed(*arguments)
                else:
                    shell.run(command)


def test_the_settings_page_is_current() -> None:
    written = subprocess.run(
        [sys.executable, "tools/settings_page.py"], cwd=ROOT, capture_output=True, text=True
    )
    assert (ROOT / "docs/settings.md").read_text() == written.stdout, (
        "run python tools/settings_page.py > docs/settings.md"
    )


@pytest.mark.parametrize(
    "example",
    sorted(set((ROOT / "examples").glob("*.toml")) - {POLICY}),
    ids=lambda p: p.name,
)
def test_every_example_is_a_sound_configuration(example: Path) -> None:
    assert load_flat(example)


def test_the_example_of_a_policy_is_sound() -> None:
    assert Policy.read(POLICY).servers
