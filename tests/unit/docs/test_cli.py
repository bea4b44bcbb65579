"""The page of commands: every verb and every exit code is on it."""

from pathlib import Path

import pytest

from client.deployment.command import VERBS as CLIENT_VERBS
from fedprompt import errors
from fedprompt.cli import COMMANDS
from server.deployment.command import VERBS as SERVER_VERBS

PAGE = (Path(__file__).parents[3] / "docs/cli.md").read_text(encoding="utf-8")
KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type)]


@pytest.mark.parametrize("code", sorted({kind.exit_code for kind in KINDS}))
def test_every_exit_code_is_explained(code):
    assert f"| {code} |" in PAGE


def test_every_verb_is_named():
    assert all(f"`fedprompt {verb}`" in PAGE for verb in COMMANDS)
    told = " ".join(PAGE.split())
    assert f"`flower-server {', '.join(SERVER_VERBS)}`" in told
    assert f"`flower-client {', '.join(CLIENT_VERBS)}`" in told
