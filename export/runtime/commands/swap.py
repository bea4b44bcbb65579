"""``fedprompt swap``: another tuned prompt for a deployed bundle."""

from pathlib import Path
from typing import Annotated

import typer

from fedprompt.options import JsonOption, show


def swap(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle.")],
    artefact: Annotated[Path, typer.Argument(help="Folder of a prompt artefact, or of a run.")],
    json: JsonOption = False,
) -> None:
    """Serve an artefact's prompt from now on: same backbone and method, nothing is exported.

    The classes stay those of the bundle. Needs neither torch nor onnx.
    """
    from export.runtime.open_vocabulary.swap import swap as put_in
    from fedprompt.artefact import load_artefact

    loaded = load_artefact(artefact)
    number = put_in(bundle, loaded)
    report = {"bundle": str(bundle), "version": number, "artefact_sha256": loaded.sha256}
    show(report, f"{bundle} serves version {number}: {artefact}", as_json=json)
