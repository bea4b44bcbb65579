"""How a command line is made: verbs imported when called, errors as one line, signals obeyed."""

import errno
import importlib
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any, get_type_hints

import click
import typer
from typer.core import TyperArgument
from typer.models import ArgumentInfo

from fedprompt.errors import FedpromptError, StorageError
from fedprompt.home import at_home
from fedprompt.options import shown
from fedprompt.text import one_line

_MESSAGE = 5000  # characters of the last line
# what a file system says no with, wherever a path was used; everything else is a fault of ours
_REFUSALS = {
    errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR,
    errno.EEXIST, errno.ELOOP, errno.ENOSPC, errno.EDQUOT,
}  # fmt: skip
_INTERRUPTED, _TERMINATED = 130, 143  # as a shell reports SIGINT and SIGTERM
_GRACE = 1.5  # seconds until a signal's handler must have run
_UNWINDING = 60.0  # seconds until what it began must be over; children are ended meanwhile
_WATCH = "signals"  # the thread that counts them
_STDERR = 2


class LazyGroup(click.Group):
    """List commands without importing them; torch is loaded by the verbs that need it.

    Parameters
    ----------
    program
        What errors begin with.
    verbs
        Verb -> (where it lives, what it does).
    hint
        What somebody who stopped a verb wants to know.
    """

    def __init__(
        self, *, program: str, verbs: dict[str, tuple[str, str]], hint: str, **settings: Any
    ) -> None:
        super().__init__(**settings)
        self.program, self.verbs, self.hint = program, verbs, hint

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the verbs in the order of a run."""
        return list(self.verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import one verb."""
        if cmd_name not in self.verbs:
            return None
        return command(cmd_name, resolve(self.verbs[cmd_name][0]))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the list of verbs from the table above."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in self.verbs.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run a verb; an expected error is one line and its own exit code."""
        as_json = "--json" in ctx.args  # here still the verb's own
        try:
            with installed():
                return super().invoke(ctx)
        except FedpromptError as error:
            message = one_line(str(error), _MESSAGE)
            _tell(message, error.exit_code, as_json=as_json and not shown(ctx))
            typer.echo(f"{self.program}: {message}", err=True)
            ctx.exit(error.exit_code)
        except OSError as error:
            if error.errno not in _REFUSALS or error.filename is None:
                raise
            message = f"{error.filename!r:.200}: {error.strerror}; give another path"
            _tell(message, StorageError.exit_code, as_json=as_json and not shown(ctx))
            typer.echo(f"{self.program}: {message}", err=True)
            ctx.exit(StorageError.exit_code)
        except (click.Abort, KeyboardInterrupt):
            typer.echo(f"{self.program}: interrupted; {self.hint}", err=True)
            ctx.exit(_INTERRUPTED)
        except click.UsageError as error:  # click itself writes it to stderr
            _tell(error.format_message(), error.exit_code, as_json=as_json)
            raise


def resolve(reference: str) -> Any:
    """Import ``module:attribute``.

    Raises
    ------
    FedpromptError
        A package of the training installation is missing.
    """
    module, _, attribute = reference.partition(":")
    with installed():
        return getattr(importlib.import_module(module), attribute)


@contextmanager
def installed() -> Iterator[None]:
    """Name the package that an edge installation lacks, instead of a traceback."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise FedpromptError(
            f"this command needs the package {error.name!r}, which is not installed; "
            "pip install 'fedprompt[cpu]' or 'fedprompt[gpu]'"
        ) from error


def command(name: str, function: Callable[..., None]) -> click.Command:
    """Return a click command made from a function with typer annotations."""
    app = typer.Typer(add_completion=False, rich_markup_mode="markdown")
    app.command(name)(function)
    made: click.Command = typer.main.get_command(app)
    _explain_arguments(made, function)
    _take_home(made)
    return made


def _explain_arguments(made: click.Command, function: Callable[..., None]) -> None:
    """Put back the help of arguments, which click 8.5 takes from the typer of this range."""
    hints = get_type_hints(function, include_extras=True)
    for parameter in made.params:
        for note in getattr(hints.get(parameter.name or ""), "__metadata__", ()):
            if isinstance(parameter, TyperArgument) and isinstance(note, ArgumentInfo):
                parameter.help = note.help


def _take_home(made: click.Command) -> None:
    """Let every path begin with ``~``: a shell leaves it alone in ``--output=~/runs``."""
    for parameter in made.params:
        if isinstance(parameter.type, click.Path):
            taken = partial(_convert_path, parameter.type.convert)
            setattr(parameter.type, "convert", taken)  # noqa: B010 (mypy: it is a method)


def _convert_path(convert: Callable[..., Any], value: Any, *context: Any) -> Any:
    return convert(at_home(value) if isinstance(value, str) else value, *context)


HELP = {"help_option_names": ["-h", "--help"]}


def run(group: LazyGroup) -> None:
    """Run a `LazyGroup`; SIGTERM ends it as Ctrl-C does, with its own exit code (F34)."""
    stop = _Stop(group)
    stop.watch()
    try:
        group(prog_name=group.program)
    except SystemExit as left:
        _leave(left.code)
        raise


class _Stop:
    """End the process on SIGTERM and Ctrl-C, with the exit code and last line of each.

    A handler unwinds what runs, so that files and processes are left whole; a second signal kills.
    Handlers run between two steps of Python, never while ONNX Runtime or torch computes. What
    Python does write at once, in the signal's own context, is the signal's number, which a thread
    reads: it ends the process where the handler cannot run. A verb with handlers of its own, such
    as `serve`, ends in its own time.
    """

    def __init__(self, group: LazyGroup) -> None:
        self._told = f"{group.program}: terminated; {group.hint}"
        self._ended = {
            signal.SIGTERM: (_TERMINATED, self._told),
            signal.SIGINT: (_INTERRUPTED, f"{group.program}: interrupted; {group.hint}"),
        }
        self._unwinding = threading.Event()

    def watch(self) -> None:
        """Take the signals from now on."""
        signal.signal(signal.SIGTERM, self._terminate)
        signal.signal(signal.SIGINT, self._interrupt)
        reader, writer = socket.socketpair()
        writer.setblocking(False)
        signal.set_wakeup_fd(writer.detach(), warn_on_full_buffer=False)
        if hasattr(os, "register_at_fork"):  # signals of a forked child are not ours
            os.register_at_fork(after_in_child=partial(signal.set_wakeup_fd, -1))
        threading.Thread(target=self._follow, args=(reader,), name=_WATCH, daemon=True).start()

    def _terminate(self, number: int, _: FrameType | None) -> None:
        self._unwinding.set()
        signal.signal(number, signal.SIG_DFL)
        typer.echo(self._told, err=True)
        raise SystemExit(_TERMINATED)

    def _interrupt(self, number: int, _: FrameType | None) -> None:
        self._unwinding.set()
        signal.signal(number, signal.default_int_handler)
        raise KeyboardInterrupt

    def _follow(self, reader: socket.socket) -> None:
        while numbers := reader.recv(1):
            number = numbers[0]
            if number not in self._ended or not self._is_ours(number):
                continue
            code, told = self._ended[signal.Signals(number)]
            if self._unwinding.wait(_GRACE):
                time.sleep(_UNWINDING)
            else:
                os.write(_STDERR, f"{told}\n".encode())
            os._exit(code)

    def _is_ours(self, number: int) -> bool:
        """Say whether nobody but this class listens to a signal."""
        ours = (self._terminate, self._interrupt, signal.SIG_DFL, signal.default_int_handler)
        return signal.getsignal(number) in ours


def _leave(code: str | int | None) -> None:
    """End the process now if a thread is still at work: the command is over, nobody waits for it.

    Python would join it, for ever if a site hangs; and one that is cut off inside torch while the
    interpreter goes down aborts the process, whose exit code would be lost.
    """
    at_work = [thread for thread in threading.enumerate() if thread.name != _WATCH]
    if len(at_work) == 1 or not isinstance(code, int):
        return
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def _tell(message: str, code: int, *, as_json: bool) -> None:
    """Print an error where a program looks for the result, unless a result is there already."""
    if as_json:
        typer.echo(json.dumps({"error": message, "exit_code": code}))
