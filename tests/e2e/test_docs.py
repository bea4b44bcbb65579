"""Run every command of the docs, in order, as a reader would."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedprompt.config import load

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"```(sh|python|toml)\n(.*?)```", re.S)
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


def run(command: str, folder: Path) -> None:
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "FEDPROMPT_CACHE": str(folder / "cache"),
    }
    done = subprocess.run(  # noqa: S602 (the commands are our own docs')
        command, shell=True, cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


def commands(block: str) -> list[str]:
    """Return a shell block's commands; ``make`` is run by test_demo.py and by CI itself."""
    lines = [line.partition(" #")[0].strip() for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith(("make", "#"))]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_the_page_works(page: str, tmp_path: Path) -> None:
    blocks = BLOCK.findall((ROOT / page).read_text())
    if any(kind != "toml" and "photos" in text for kind, text in blocks):
        photos(tmp_path / "photos")
    for kind, text in blocks:
        if kind == "toml" and (name := re.match(r"# (\S+\.toml)\n", text)):
            (tmp_path / name[1]).write_text(text)
        elif kind == "python":
            (tmp_path / "block.py").write_text(text)
            run(f"{sys.executable} block.py", tmp_path)
        elif kind == "sh":
            for command in commands(text):
                run(command, tmp_path)


def test_the_settings_page_is_current() -> None:
    written = subprocess.run(
        [sys.executable, "tools/settings_page.py"], cwd=ROOT, capture_output=True, text=True
    )
    assert (ROOT / "docs/settings.md").read_text() == written.stdout, (
        "run python tools/settings_page.py > docs/settings.md"
    )


@pytest.mark.parametrize(
    "example", sorted((ROOT / "examples").glob("*.toml")), ids=lambda p: p.name
)
def test_every_example_is_a_sound_configuration(example: Path) -> None:
    assert load(example)
