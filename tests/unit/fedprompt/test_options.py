import json
from typing import Any

import click
import pytest
from click.testing import CliRunner

from fedprompt.command_line import command
from fedprompt.options import ConfigOption, JsonOption, SetOption, show, shown


def test_a_person_reads_lines(capsys: pytest.CaptureFixture[str]) -> None:
    show({"accuracy": 0.5}, "accuracy 50%", as_json=False)
    assert capsys.readouterr().out == "accuracy 50%\n"


def test_a_program_reads_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    show({"class": "mañana", "accuracy": None}, "never", as_json=True)
    out = capsys.readouterr().out
    assert out == '{"class": "mañana", "accuracy": null}\n'
    assert json.loads(out) == {"class": "mañana", "accuracy": None}


def test_what_was_shown_is_remembered() -> None:
    with click.Context(click.Command("x")) as context:
        assert not shown(context)
        show({}, "", as_json=False)
        assert shown(context)


def test_options_of_a_command() -> None:
    seen: list[Any] = []

    def verb(
        config: ConfigOption = None, override: SetOption = None, json: JsonOption = False
    ) -> None:
        seen.append((config and str(config), override, json))

    runner, made = CliRunner(), command("verb", verb)
    assert runner.invoke(made, []).exit_code == 0
    assert (
        runner.invoke(
            made, ["--config", "a.toml", "--set", "a.b=1", "--set", "a.c=2", "--json"]
        ).exit_code
        == 0
    )
    assert seen == [(None, None, False), ("a.toml", ["a.b=1", "a.c=2"], True)]
