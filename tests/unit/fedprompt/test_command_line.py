import errno
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import pytest
import typer
from click.testing import CliRunner, Result

from client.deployment.command import VERBS as CLIENT_VERBS
from fedprompt import command_line, errors, options
from fedprompt.cli import COMMANDS, group
from fedprompt.command_line import command, resolve
from fedprompt.errors import DataError, FedpromptError
from server.deployment.command import VERBS as SERVER_VERBS

HEAVY = {"torch", "flwr", "onnx", "onnxruntime", "pydantic", "open_clip", "numpy", "PIL"}
KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type)]


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(group, arguments)


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch):
    """Put a verb of the test's own into the table."""

    def add(function) -> None:
        monkeypatch.setitem(COMMANDS, "verb", ("tests:verb", "Do it."))
        monkeypatch.setattr(command_line, "resolve", lambda reference: function)

    return add


def failing(error: BaseException, *, result: bool = False):
    def function(json: options.JsonOption = False) -> None:
        if result:
            options.show({"found": 1}, "found one", as_json=json)
        raise error

    return function


def test_importing_the_command_loads_nothing_heavy() -> None:
    code = "import sys, fedprompt.cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & set(done.stdout.split())


def test_no_verb_loads_a_library_of_the_training_to_explain_itself() -> None:
    verbs = [
        where for table in (COMMANDS, CLIENT_VERBS, SERVER_VERBS) for where, _ in table.values()
    ]
    code = (
        "import sys\nfrom fedprompt.command_line import resolve\n"
        f"for verb in {verbs}: resolve(verb)\nprint(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "open_clip", "sklearn", "matplotlib"} & set(done.stdout.split())


def test_help_lists_every_verb_and_every_exit_code() -> None:
    shown = invoke("--help")
    assert shown.exit_code == 0
    assert all(
        name in shown.output and text in shown.output for name, (_, text) in COMMANDS.items()
    )
    codes = set(re.findall(r"(\d+)\s+\w", shown.output))
    assert codes >= {str(kind.exit_code) for kind in KINDS}


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_verb_resolves_and_explains_itself(name: str) -> None:
    function = resolve(COMMANDS[name][0])
    assert callable(function)
    shown = CliRunner().invoke(command(name, function), ["--help"])
    assert shown.exit_code == 0
    assert function.__doc__.splitlines()[0].split()[0] in shown.output
    assert ("--json" in shown.output) == (name != "serve")  # which ends when it is told to


def test_help_explains_arguments_too() -> None:
    shown = CliRunner().invoke(command("report", resolve(COMMANDS["report"][0])), ["--help"])
    assert "Folder of a run, as simulate leaves it." in shown.output


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_is_one_line_and_its_exit_code(verb, kind: type[FedpromptError]) -> None:
    verb(failing(kind("found this,\n  expected that")))
    done = invoke("verb")
    assert done.exit_code == kind.exit_code
    assert done.stderr == "fedprompt: found this, expected that\n"
    assert done.stdout == ""


def test_exit_codes_are_all_different() -> None:
    assert len({kind.exit_code for kind in KINDS}) == len(KINDS)


def test_with_json_an_error_is_the_one_object(verb) -> None:
    verb(failing(DataError("no images")))
    done = invoke("verb", "--json")
    assert json.loads(done.stdout) == {"error": "no images", "exit_code": 3}
    assert done.stderr == "fedprompt: no images\n"


def test_after_a_result_no_second_object_is_printed(verb) -> None:
    verb(failing(DataError("one of two images is bad"), result=True))
    done = invoke("verb", "--json")
    assert json.loads(done.stdout) == {"found": 1}
    assert (done.exit_code, done.stderr) == (3, "fedprompt: one of two images is bad\n")


def test_an_unknown_verb_is_refused() -> None:
    done = invoke("simulte")
    assert done.exit_code == 2
    assert "No such command 'simulte'" in done.stderr
    assert json.loads(invoke("simulte", "--json").stdout)["exit_code"] == 2


def test_an_unknown_option_is_refused() -> None:
    done = invoke("doctor", "--jsn")
    assert done.exit_code == 2
    assert "--jsn" in done.stderr


def test_ctrl_c_is_told_as_a_shell_does(verb) -> None:
    verb(failing(KeyboardInterrupt()))
    done = invoke("verb")
    assert done.exit_code == 130
    assert "Traceback" not in done.output


def test_a_verb_whose_package_is_missing_names_it(verb, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FedpromptError, match=r"'torsch', which is not installed; pip install"):
        resolve("torsch:train")

    def edge() -> None:
        import torsch  # noqa: F401

    verb(edge)
    done = invoke("verb")
    assert done.exit_code == 1
    assert done.stderr.startswith("fedprompt: this command needs the package 'torsch'")


@pytest.mark.parametrize(
    "thread", ["", "threading.Thread(target=time.sleep, args=(600,)).start(); "]
)
def test_main_leaves_with_the_code_whatever_still_works(thread: str) -> None:
    """In a process of its own: where threads still work, the command ends the process at once."""
    code = f"import threading, time; from fedprompt.cli import main; {thread}main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "nope"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2
    assert "No such command" in done.stderr


@pytest.mark.parametrize("written", [("--place=~/x",), ("--place", "~/x")])
def test_a_path_that_no_shell_has_expanded_begins_at_home(verb, monkeypatch, written) -> None:
    def function(
        there: Path,
        place: Annotated[Path | None, typer.Option()] = None,
        many: Annotated[list[Path] | None, typer.Option()] = None,
        text: Annotated[str, typer.Option()] = "",
    ) -> None:
        found = [there, place, *(many or []), text]
        typer.echo(" ".join(map(str, found)))

    verb(function)
    monkeypatch.setenv("HOME", "/home/ann")
    done = invoke("verb", "~", *written, "--many=~/y", "--many=z/~", "--text=~/t")
    assert done.output == "/home/ann /home/ann/x /home/ann/y z/~ ~/t\n"


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENAMETOOLONG, "File name too long", "y" * 300),
        NotADirectoryError(20, "No", "x"),
    ],
)
def test_a_path_that_the_file_system_refuses_is_one_line_and_storage(verb, error) -> None:
    verb(failing(error))
    done = invoke("verb", "--json")
    assert done.exit_code == 12
    assert json.loads(done.stdout)["exit_code"] == 12
    assert done.stderr.count("\n") == 1
    assert "give another path" in done.stderr


@pytest.mark.parametrize("error", [OSError(5, "Input/output error", "x"), OSError("no number")])
def test_other_errors_of_the_system_keep_their_traceback(verb, error) -> None:
    verb(failing(error))
    assert invoke("verb").exception is error


@pytest.mark.parametrize("bad", ["y" * 300, "file/below"])
@pytest.mark.parametrize(
    "arguments",
    [
        ("train", "--set", "data.source=nowhere", "--output"),
        ("simulate", "--set", "data.source=nowhere", "--output"),
        ("eval", "--protocol", "few-shot", "--set", "data.source=nowhere", "--output"),
        ("export", "nowhere", "--output"),
        ("export", "nowhere", "--open-vocabulary", "--output"),
        ("report", "nowhere", "--output"),
    ],
    ids=lambda arguments: arguments[0] if isinstance(arguments, tuple) else None,
)
def test_what_cannot_be_written_is_refused_before_anything_is_read(
    tmp_path, monkeypatch, arguments, bad
) -> None:
    """Images, prompt and run are not there either: nobody has looked for them yet."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    done = invoke(*arguments, bad)
    assert done.exit_code == 12, done.output
    assert "nothing was done yet" in done.stderr
    assert done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("key", ["data.source", "backbone.pretrained", "server.output"])
def test_a_setting_that_no_file_system_takes_is_one_line(key, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for value in ("y" * 300, '"a\\u0000b"'):
        settings = [f"--set={key}={value}", "--set=backbone.name=ViT-B-32"]
        done = invoke("simulate", "--output", "new", *settings)
        if key == "server.output" and value.startswith("y"):
            continue  # --output stands in its place
        assert done.exit_code in (2, 3, 12), done.output
        assert done.stderr.count("\n") == 1
