"""No application names another's module in a string; import-linter sees the imports only."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedprompt.settings.run_config import defaults

ROOT = Path(__file__).parents[2]
APPLICATIONS = ("server", "client", "export")
ABOVE = ("fedprompt.cli", "fedprompt.experiments")
DOTTED = re.compile(r"[a-z_]+(\.[a-z_]+)+(:\w+)?")
# Flower loads both apps by name, from the file that a run is submitted with
ALLOWED = {("server/rounds/flower_cli.py", "client.app:app")}


def strings(tree: ast.AST) -> Iterator[str]:
    """Yield every dotted name in the strings of a module, but for its docstrings."""
    prose = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield from (match[0] for match in DOTTED.finditer(node.value))


def is_module(name: str) -> bool:
    """Return whether a dotted name, ``:attribute`` behind it or not, is a module of ours."""
    module, _, attribute = name.partition(":")
    path = ROOT / module.replace(".", "/")
    is_setting = not attribute and name in defaults()
    return path.with_suffix(".py").is_file() and not is_setting


def named_elsewhere(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the file and the module of another application, or above all, that it names."""
    own = path.relative_to(ROOT).parts[0]
    for name in strings(ast.parse(path.read_text())):
        owner = name.partition(".")[0]
        foreign = owner in APPLICATIONS and owner != own
        if (foreign or name.startswith(ABOVE)) and is_module(name):
            yield str(path.relative_to(ROOT)), name


@pytest.mark.parametrize("package", ["fedprompt", *APPLICATIONS])
def test_no_string_names_a_module_of_another_application(package: str) -> None:
    above = [ROOT / name.replace(".", "/") for name in ABOVE]
    named = {
        reference
        for path in (ROOT / package).rglob("*.py")
        if not any(path.is_relative_to(folder) for folder in above)
        for reference in named_elsewhere(path)
    }
    assert named <= ALLOWED


def test_a_string_that_names_a_module_is_seen(tmp_path: Path) -> None:
    source = (
        "\"client.app\"\nresolve('client.site:Site')\nsettings['server.rounds']\nf'{x} server.app'"
    )
    assert list(strings(ast.parse(source))) == ["client.site:Site", "server.rounds", "server.app"]
    assert [is_module(name) for name in ("client.site:Site", "server.rounds", "server.app")] == [
        True, False, True,
    ]  # fmt: skip
