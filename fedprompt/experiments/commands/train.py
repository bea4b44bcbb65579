"""``fedprompt train``: tune a prompt on the images of one machine, without a federation."""

from pathlib import Path
from typing import Annotated

import typer

from client.tuning.evaluate import predict
from fedprompt.artefact import CONFIG
from fedprompt.errors import ConfigError
from fedprompt.experiments.centralised_training import fit_run
from fedprompt.experiments.metrics import metrics
from fedprompt.experiments.setup import Workbench, open_workbench
from fedprompt.options import ConfigOption, JsonOption, SetOption, show
from fedprompt.prompts.artefacts import to_artefact
from fedprompt.prompts.build import Prompt, bank_of, build_prompt, rule_of
from fedprompt.prompts.template import Template
from fedprompt.run_folder import RunFolder
from fedprompt.settings.prompt import PromptConfig
from fedprompt.settings.run_config import load, section
from fedprompt.storage import check_writable


def train(
    config: ConfigOption = None,
    override: SetOption = None,
    output: Annotated[Path, typer.Option(help="Folder of the artefact.")] = Path("runs/local"),
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the artefact that lies there.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Tune a prompt on this machine's images alone and save its artefact.

    The baseline that a federation must beat; also the way to tune where nothing is private.
    Example: fedprompt train --set data.source=photos/ --set data.shots=16 --set fit.epochs=50
    """
    flat = load(config, override or ())
    check_writable(output, "folder")
    if not overwrite:
        _check_vacant(output)
    bench = open_workbench(flat)
    settings = section(flat, "prompt", PromptConfig)
    if settings.personal != "global":
        raise ConfigError(
            f"prompt.personal = {settings.personal} is about sites of a federation, and `fedprompt "
            "train` has one prompt; leave it out, or use `fedprompt simulate`"
        )
    classes, template = bench.train.classes, bench.data.template
    # a federation of one: under fresh-basis epochs are its rounds
    prompt = build_prompt(settings, bench.clip, classes, template, rule=rule_of(flat))
    before = _accuracy(bench, Template(bench.clip, classes, template))
    bank = bank_of(settings.method)
    images, labels = bench.encode(bench.train, prompt.first_layer, bank)
    loss = fit_run(prompt, images, labels, bench.fit, settings)
    after = _accuracy(bench, prompt)
    told = {"round": 0, "seed": settings.seed, "white_level": bench.data.white_level}
    artefact = to_artefact(bench.clip, prompt, classes, template, **told, aggregation=None)
    artefact.save(output)
    RunFolder(output).write_settings(flat)
    result = {
        "artefact": str(output),
        "loss": loss,
        "zero_shot_accuracy": before,
        "accuracy": after,
    }
    show(
        result,
        f"zero-shot {before:.1%}, tuned {after:.1%} on {len(bench.test)} held-out images; "
        f"artefact in {output}",
        as_json=json,
    )


def _check_vacant(output: Path) -> None:
    if (output / CONFIG).exists():
        raise ConfigError(
            f"{output} holds a prompt already; give another --output, or replace it with "
            "--overwrite"
        )


def _accuracy(bench: Workbench, prompt: Prompt) -> float:
    images, labels = bench.encode(bench.test, prompt.first_layer)
    return metrics(predict(prompt, images), labels)["accuracy"]
