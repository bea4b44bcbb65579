"""The verbs that stand above the applications: they combine a client, a server and an exporter.

What a verb needs is imported when it runs: ``--help`` loads neither torch nor Flower.
"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from fedprompt.errors import ConfigError
from fedprompt.options import ConfigOption, JsonOption, SetOption, show
from fedprompt.run_folder import RunFolder
from fedprompt.storage import check_writable


def methods(
    config: ConfigOption = None, override: SetOption = None, json: JsonOption = False
) -> None:
    """List the methods, with the numbers each trains and sends.

    Counted from the backbone's shapes: no weights are loaded but the embedded ones.
    Example: fedprompt methods --set backbone.name=ViT-B-16 --set prompt.form=lowrank
    """
    from fedprompt.cli.methods import list_methods
    from fedprompt.settings.run_config import load_flat

    show(*list_methods(load_flat(config, override or ())), as_json=json)


def simulate(
    config: ConfigOption = None,
    override: SetOption = None,
    engine: Annotated[
        Literal["local", "ray"],
        typer.Option(help="local: in this process; ray: Flower's Ray engine."),
    ] = "local",
    output: Annotated[
        Path | None, typer.Option(help="Folder of checkpoints, rounds.jsonl and artefact.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue after the last committed round.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Tune a prompt over simulated sites and leave its artefact in the output folder.

    Both engines run the same ServerApp and ClientApp and end in the same bytes at one seed.
    Example: fedprompt simulate --set data.clients=10 --set server.rounds=10 --output runs/demo
    """
    from fedprompt.experiments.simulation import simulate
    from fedprompt.settings.run_config import RunConfig
    from server.run_folder.summary import summarise, tell

    run = RunConfig.load(config, override or ())
    folder, rounds = simulate(run, engine, output, resume=resume)
    result = summarise(folder)
    show(result, tell(result, rounds), as_json=json)


def train(
    config: ConfigOption = None,
    override: SetOption = None,
    output: Annotated[Path, typer.Option(help="Folder of the artefact.")] = Path("runs/local"),
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the artefact in that folder.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Tune a prompt on this machine's images alone and save its artefact.

    The baseline that a federation must beat; also the way to tune where nothing is private.
    Example: fedprompt train --set data.source=photos/ --set data.shots=16 --set fit.epochs=50
    """
    from fedprompt.settings.run_config import RunConfig

    run = RunConfig.load(config, override or ())
    check_writable(output, "folder")

    from fedprompt.experiments.centralised_training import train

    show(*train(run, output, overwrite=overwrite), as_json=json)


def evaluate(
    run: Annotated[
        Path | None,
        typer.Argument(help="Run or artefact folder; without it the configured prompt's start."),
    ] = None,
    config: ConfigOption = None,
    override: SetOption = None,
    protocol: Annotated[
        str, typer.Option(help="Tune and score methods over seeds as a known protocol does.")
    ] = "",
    methods: Annotated[
        str, typer.Option(help="With --protocol: names with commas between, or all.")
    ] = "template,dip,coop",
    seeds: Annotated[
        str, typer.Option(help="With --protocol: numbers with commas between.")
    ] = "0,1,2",
    target: Annotated[
        list[Path] | None,
        typer.Option(help="With --protocol: TOML file with the [data] of a set to test on."),
    ] = None,
    output: Annotated[
        Path, typer.Option(help="With --protocol: folder of tables, plots and trials.")
    ] = Path("runs/protocol"),
    workers: Annotated[
        int, typer.Option(min=1, help="With --protocol: processes that run trials.")
    ] = 1,
    json: JsonOption = False,
) -> None:
    """Score a prompt on the test split, beside zero-shot CLIP in the same run.

    A run's folder brings its own settings, and the predictions are left there for
    `fedprompt report`. Example: fedprompt eval runs/demo

    With --protocol methods are tuned as it says; trials that are done are kept.
    Example: fedprompt eval --protocol base-to-new --methods template,dip,coop --output runs/b2n
    """
    from fedprompt.settings.run_config import load_flat

    if not protocol:
        from fedprompt.experiments.evaluation import score

        show(*score(run, load_flat(config, override or ())), as_json=json)
        return
    if run:
        raise ConfigError(
            f"--protocol tunes methods itself and takes no run, found {run}; leave one of them out"
        )
    check_writable(output, "folder")

    from fedprompt.experiments.protocols.run import run_protocol

    given = load_flat(config, override or ())
    result = run_protocol(protocol, methods, seeds, target or (), given, output, workers)
    show(*result, as_json=json)


def report(
    run: Annotated[Path, typer.Argument(help="Folder of a run, as simulate leaves it.")],
    output: Annotated[
        Path | None, typer.Option(help="HTML file to write; RUN/report.html by default.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="Score these images first, as `fedprompt eval RUN --set data.source=SOURCE`.",
        ),
    ] = None,
    beside: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN", help="Another run, scored on the same images, to compare with."
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Make one self-contained HTML page of a run: curves, bytes, sites, refusals, predictions.

    It loads nothing from the network and can be mailed as it is.
    Example: fedprompt report runs/demo
    """
    page = output or RunFolder(run).report
    check_writable(page, "file")

    from server.run_folder.report.run import read_run
    from server.run_folder.report.write import write_report

    if data:
        from fedprompt.experiments.evaluation import score
        from fedprompt.settings.run_config import load_flat

        read_run(run)  # a damaged record is refused before any image is scored
        score(run, load_flat(None, [f"data.source={data}"]))
    show(*write_report(run, beside, page), as_json=json)
