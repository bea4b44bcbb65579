"""``fedprompt rollback``: undo the last change of a deployed bundle."""

from pathlib import Path
from typing import Annotated

import typer

from fedprompt.options import JsonOption, show


def rollback(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle.")],
    json: JsonOption = False,
) -> None:
    """Serve the version before the current one: its prompt and its classes."""
    from export.runtime.open_vocabulary.bundle import Bundle

    changed = Bundle(bundle)
    number = changed.roll_back()
    served = changed.manifest.served
    report = {
        "bundle": str(bundle),
        "version": number,
        "artefact_sha256": served.artefact_sha256,
        "classes": list(served.classes),
    }
    show(report, f"{bundle} serves version {number}, {len(served.classes)} classes", as_json=json)
