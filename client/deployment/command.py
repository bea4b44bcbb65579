"""The ``flower-client`` command: each verb is imported when it is called."""

import click

from fedprompt.cli import HELP, LazyGroup, run

VERBS = {
    "join": ("client.deployment.join:join", "Check everything, then take part."),
    "start": ("client.deployment.start:start", "Take part again, from a folder made by join."),
    "doctor": ("client.deployment.doctor:doctor", "Repeat the checks of join."),
    "status": ("client.deployment.status:status", "Say what this site did and sent."),
    "egress": ("client.deployment.egress_table:egress", "List everything that left this site."),
}


@click.group(
    cls=LazyGroup,
    program="flower-client",
    verbs=VERBS,
    hint="start it again with `flower-client start FOLDER`",
    context_settings=HELP,
)
@click.version_option(package_name="fedprompt")
def group() -> None:
    """Take part in a federation as one site: your images stay, a few hundred numbers leave.

    Exit codes: 0 done or told to stop, 1 error, 2 configuration, 3 data, 4 backbone, 12 storage,
    14 policy, 15 the server cannot be reached or trusted, 16 the server refuses this site's key,
    130 interrupted, 143 terminated.
    """


def main() -> None:
    """Run the command line ``flower-client``."""
    run(group)
