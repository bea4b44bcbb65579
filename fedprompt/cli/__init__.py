"""The ``fedprompt`` command: every verb, of the applications and of the experiments above them."""

import logging

import click

from fedprompt.command_line import HELP, LazyGroup, run
from fedprompt.processes import logs

# verb -> (where it lives, what it does); strings, because a verb is imported when it is called
COMMANDS = {
    "doctor": ("fedprompt.cli.doctor:doctor", "Say what this machine has and lacks."),
    "methods": ("fedprompt.cli.commands:methods", "List the methods, with the numbers each sends."),
    "simulate": ("fedprompt.cli.commands:simulate", "Tune a prompt over simulated sites."),
    "train": (
        "fedprompt.cli.commands:train",
        "Tune a prompt on one site's images alone.",
    ),
    "eval": ("fedprompt.cli.commands:evaluate", "Score a prompt on held-out images."),
    "export": ("export.targets.commands:export", "Fuse a prompt into one ONNX file."),
    "verify": (
        "export.runtime.commands:verify",
        "Check an ONNX file's parity without torch.",
    ),
    "sign": ("export.targets.commands:sign", "Sign what was exported with a local key."),
    "predict": ("export.runtime.commands:predict", "Classify images with an ONNX file."),
    "bench": ("export.runtime.commands:bench", "Time an ONNX file on this machine."),
    "serve": ("export.runtime.commands:serve", "Answer over HTTP with an ONNX file."),
    "swap": ("export.runtime.commands:swap", "Put a new prompt into a deployed bundle."),
    "rollback": ("export.runtime.commands:rollback", "Serve a bundle's version before."),
    "report": ("fedprompt.cli.commands:report", "Make one HTML page of a run."),
}


@click.group(
    cls=LazyGroup,
    program="fedprompt",
    verbs=COMMANDS,
    hint="`fedprompt simulate` goes on with --resume",
    context_settings=HELP,
)
@click.version_option(package_name="fedprompt")
@click.option("-v", "--verbose", is_flag=True, help="Log what happens inside.")
def group(verbose: bool) -> None:
    """Tune a few hundred numbers over many sites, fuse them into one ONNX file, run it anywhere.

    Exit codes: 0 done, 1 error, 2 configuration, 3 data, 4 backbone, 5 prompt, 6 artefact,
    7 checkpoint, 8 quorum, 9 parity, 10 ONNX Runtime, 11 ONNX file, 12 storage, 13 privacy,
    14 policy, 15 connection, 16 refused, 130 interrupted, 143 terminated.
    """
    handler = logging.StreamHandler()
    handler.name = logs.MARK  # a verb that has a log of its own replaces it
    level = logging.DEBUG if verbose else logging.WARNING
    handler.setFormatter(logs.CommandFormatter())
    logging.basicConfig(level=level, handlers=[handler])


def main() -> None:
    """Run the command line ``fedprompt``."""
    run(group)
