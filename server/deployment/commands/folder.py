"""How a command finds its deployment: an argument where it is the object, else an option."""

from pathlib import Path
from typing import Annotated

import typer

FolderOption = Annotated[
    Path,
    typer.Option(
        "--folder", envvar="FLOWER_SERVER_FOLDER", help="Deployment folder of `flower-server init`."
    ),
]

FolderArgument = Annotated[
    Path, typer.Argument(envvar="FLOWER_SERVER_FOLDER", help="Deployment folder.")
]
