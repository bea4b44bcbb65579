"""``fedprompt simulate``: tune a prompt over simulated sites, on one machine or a Ray cluster."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from flwr.app import Context, RecordDict
from rich.console import Console

from fedprompt.cli import resolve
from fedprompt.data.load import site_sizes
from fedprompt.errors import CheckpointError
from fedprompt.options import ConfigOption, JsonOption, SetOption, show
from fedprompt.round_record import RoundRecord
from fedprompt.run_folder import RunFolder
from fedprompt.settings.data import DataConfig
from fedprompt.settings.prompt import PromptConfig
from fedprompt.settings.run_config import defaults, load, section
from fedprompt.settings.section import Flat
from fedprompt.settings.server import ServerConfig
from server import outcome
from server.local_grid import LocalGrid
from server.progress import Display, LineDisplay, LogFeed, display
from server.rounds import check_vacant
from server.rounds import log as rounds_log

_KEPT = {  # what a reader must know of the artefact, by prompt.personal
    "global": "",
    "local": ", as it started: each site keeps the prompt that it tuned",
    "both": ", without the sites' own prompts, which the accuracy is with",
}
# methods whose whole prompt starts at the words
_AT_WORDS = ("dip", "dip-fixed", "coop", "kgcoop", "prograd")
SERVER_APP, CLIENT_APP = "server.app:app", "client.app:app"


class Engine(StrEnum):
    """Where the sites run."""

    LOCAL = "local"
    RAY = "ray"


def simulate(
    config: ConfigOption = None,
    override: SetOption = None,
    engine: Annotated[
        Engine, typer.Option(help="local: in this process; ray: Flower's Ray engine.")
    ] = Engine.LOCAL,
    output: Annotated[
        Path | None, typer.Option(help="Folder of checkpoints, rounds.jsonl and artefact.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on after the last committed round.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Tune a prompt over simulated sites and leave its artefact in the output folder.

    Both engines run the same ServerApp and ClientApp and end in the same bytes at one seed.
    Example: fedprompt simulate --set data.clients=10 --set server.rounds=10 --output runs/demo
    """
    settings = defaults() | load(config, override or ())
    chosen = output or Path(section(settings, "server", ServerConfig).output)
    settings["server.output"] = str(chosen.resolve())
    settings["server.resume"] = resume or bool(settings["server.resume"])
    settings |= queued(settings)
    server = section(settings, "server", ServerConfig)
    check_vacant(server)
    data = section(settings, "data", DataConfig)
    site_sizes(data, data.clients)  # before a site starts: what is wrong is wrong for all of them
    with display(server.rounds, Console(stderr=True)) as shown:
        run_on(engine)(settings, shown)
    result = summarise(Path(server.output))
    show(result, tell(result, server.rounds), as_json=json)


def queued(settings: Flat) -> Flat:
    """Return the deadlines of a simulation: sites wait for each other, so theirs add up."""
    sites = section(settings, "data", DataConfig).clients
    server = section(settings, "server", ServerConfig)
    return {
        "server.deadline": server.deadline * sites,
        "server.join_deadline": server.join_deadline * sites,
    }


def run_on(engine: Engine) -> Callable[[Flat, Display], None]:
    """Return the function that runs a simulation; Ray is loaded only where it is asked for."""
    if engine is Engine.LOCAL:
        return run_local
    run: Callable[[Flat, Display], None] = resolve("server.ray_engine:run_ray")
    return run


def run_local(settings: Flat, shown: Display) -> None:
    """Run server and sites in this process.

    Raises
    ------
    FedpromptError
        What ended the run.
    """
    sites = section(settings, "data", DataConfig).clients
    workers = section(settings, "server", ServerConfig).workers
    logging.getLogger("flwr").setLevel(logging.WARNING)
    with feeding(shown), LocalGrid(resolve(CLIENT_APP), sites, settings, workers) as grid:
        resolve(SERVER_APP)(grid=grid, context=Context(1, 0, {}, RecordDict(), settings))


def federate(settings: Flat) -> list[RoundRecord]:
    """Run a federation in this process, showing nothing, and return the record of its rounds.

    The artefact lies in ``server.output`` then. This is what an evaluation protocol runs.

    Raises
    ------
    FedpromptError
        What ended the run.
    """
    settings = settings | queued(settings)
    server = section(settings, "server", ServerConfig)
    run_local(settings, LineDisplay(server.rounds, Console(quiet=True)))
    return RunFolder(Path(server.output)).records()


@contextmanager
def feeding(shown: Display) -> Iterator[None]:
    """Send what the round loop logs to a display, and nowhere else."""
    feed, level, propagate = LogFeed(shown), rounds_log.level, rounds_log.propagate
    rounds_log.addHandler(feed)
    rounds_log.setLevel(logging.DEBUG)
    rounds_log.propagate = False
    try:
        yield
    finally:
        rounds_log.removeHandler(feed)
        rounds_log.setLevel(level)
        rounds_log.propagate = propagate


def summarise(folder: Path) -> dict[str, Any]:
    """Return what a finished run reached, from its own record."""
    run = RunFolder(folder)
    records = run.records()
    if not records:
        raise CheckpointError(
            f"{run.record} is gone or empty; the prompt is whole in {run.artefact}, but "
            "nothing tells how it was reached"
        )
    evaluated = [record for record in records if record.accuracy is not None]
    start = evaluated[0].accuracy if evaluated else None
    ended, last = outcome.read(folder), records[-1]
    return {
        "output": str(folder),
        "rounds": last.round,
        "start_accuracy": start,
        "zero_shot_accuracy": start if starts_at_template(run) else None,
        "accuracy": evaluated[-1].accuracy if evaluated else None,
        "worst_client_acc": evaluated[-1].worst_client_acc if evaluated else None,
        "information_density": last.information_density,
        "truncation_error": last.truncation_error,
        "bytes_up": sum(record.bytes_up for record in records),
        "bytes_down": sum(record.bytes_down for record in records),
        "strikes": {str(site): count for site, count in last.strikes.items()},
        "prompt": last.prompt,
        "personal": run.settings().get("prompt.personal", "global"),
        "artefact": ended.artefact if ended else None,
    }


def starts_at_template(run: RunFolder) -> bool:
    """Tell whether a run's prompt starts at its template's words: then round 0 is zero-shot CLIP.

    Random or other starting words, a name at another place, and prompts of the image tower give an
    untrained prompt that classifies otherwise.
    """
    settings = run.settings()
    prompt = section(settings, "prompt", PromptConfig)
    template = section(settings, "data", DataConfig).template
    words = prompt.init in ("", template.partition("{}")[0].strip())
    return words and prompt.name_position == "end" and prompt.method in _AT_WORDS


def tell(result: dict[str, Any], rounds: int) -> str:
    """Return a finished run in a few lines."""
    reached = ""
    if result["accuracy"] is not None:
        start = "untrained prompt" if result["zero_shot_accuracy"] is None else "zero-shot"
        reached = (
            f": accuracy {result['accuracy']:.1%} on the sites' held-out images "
            f"({start} {result['start_accuracy']:.1%}, "
            f"worst site {result['worst_client_acc']:.1%})"
        )
    return (
        f"{result['rounds']} of {rounds} rounds done{reached}\n"
        f"prompt {result['prompt'][:16]} in {result['output']}/artefact{_KEPT[result['personal']]}"
    )
