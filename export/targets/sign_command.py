"""``fedprompt sign``: say who made an exported file or folder, so that a change is seen."""

from pathlib import Path
from typing import Annotated

import typer

from fedprompt.options import JsonOption, show
from fedprompt.storage import check_writable


def sign(
    model: Annotated[
        Path, typer.Argument(help="A classifier.onnx, or a folder that was exported.")
    ],
    key: Annotated[Path, typer.Option(help="Private elliptic-curve key, PEM, without a password.")],
    json: JsonOption = False,
) -> None:
    """Sign the SHA-256 of every file with a local key, in OpenSSF's format for models.

    The signature of a folder is model.sig in it; that of FILE is FILE.sig beside it.
    """
    from export.runtime.signature import Signature, signature_of
    from export.targets.signing import sign as write

    check_writable(signature_of(model), "file")
    place = write(model, key)
    made = Signature.read(place)
    report = {
        "model": str(model),
        "signature": str(place),
        "key_sha256": made.key,
        "files": made.files,
    }
    told = f"wrote {place} (files: {len(made.files)}, key {made.key[:16]}…)"
    show(report, told, as_json=json)
