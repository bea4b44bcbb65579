"""The security page: what it says a promise is shown by has a test of that fault."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FAULTS = range(1, 35)


def rows() -> list[tuple[list[int], list[Path]]]:
    """Return the faults and the test files of each row of the table of promises."""
    text = (ROOT / "docs/security.md").read_text(encoding="utf-8")
    table = text.partition("## Promises")[2].partition("## How")[0]
    cells = [line.split("|")[1:-1] for line in table.splitlines() if line.startswith("|")][2:]
    return [(faults(cell[0]), files(cell[-1])) for cell in cells]


def faults(cell: str) -> list[int]:
    """Return the numbers of a cell such as ``F01-F04, F06``."""
    found = re.findall(r"F(\d+)(?:-F(\d+))?", cell)
    return [n for first, last in found for n in range(int(first), int(last or first) + 1)]


def files(cell: str) -> list[Path]:
    """Return the test files of a cell; a bare name is one of tests/faults."""
    names = re.findall(r"`((?:tests/)?[\w/]*test_\w+\.py)", cell)
    return [ROOT / (name if "/" in name else f"tests/faults/{name}") for name in names]


def test_every_fault_is_promised_something():
    assert sorted(n for numbers, _ in rows() for n in numbers) == list(FAULTS)


@pytest.mark.parametrize(("numbers", "paths"), rows())
def test_the_files_named_have_a_test_of_each_fault(numbers, paths):
    assert all(path.is_file() for path in paths)
    tests = [
        name for p in paths for name in re.findall(r"def (test_\w+)", p.read_text(encoding="utf-8"))
    ]
    missing = [n for n in numbers if not any(f"F{n:02d}_" in name for name in tests)]
    assert not missing
