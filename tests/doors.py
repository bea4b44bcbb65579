"""Run a command as a user does, and check how it refuses: one clear line and its exit code."""

from click.testing import CliRunner, Result

from fedprompt.cli import group


def run(*arguments: object) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(group, [str(argument) for argument in arguments])


def refused(code: int, *arguments: object, says: str) -> Result:
    """Run a command and check its exit code, its one line and that there is no traceback."""
    done = run(*arguments)
    assert done.exit_code == code, f"{done.output}\n{done.exception!r}"
    [line] = [text for text in done.stderr.splitlines() if text.startswith("fedprompt: ")]
    assert says in line, line
    assert "Traceback" not in done.output
    return done


def passed(*arguments: object) -> Result:
    """Run a command that is to succeed."""
    done = run(*arguments)
    assert done.exit_code == 0, f"{done.output}\n{done.exception!r}"
    return done
