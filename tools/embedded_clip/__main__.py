"""Run the recipe: ``python -m tools.embedded_clip STEP``; see README.md beside this file."""

import logging
from pathlib import Path
from typing import Annotated

import torch
import typer

from tools.embedded_clip import cache, data, pack, train_image, train_text, words

app = typer.Typer(help=__doc__, no_args_is_help=True)
Data = Annotated[Path, typer.Option(help="folder of the Tiny-ImageNet shards")]
Work = Annotated[Path, typer.Option(help="folder for checkpoints and caches (5 GB)")]
DATA, WORK = Path("../shared/data"), Path("../embedded_clip_work")
COPIES = (0, 1, 2, 3)


@app.callback()
def settings(threads: int = 2) -> None:
    """Set up logging and threads."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(threads)


@app.command()
def prepare(data_folder: Data = DATA, work: Work = WORK, seed: int = 0) -> None:
    """Decode the images, make the views, run the teachers once."""
    data.decode(data_folder, work)
    words.cache_embeddings(work)
    cache.cache_validation(work)
    for copy in COPIES:
        cache.cache_copy(work, copy, seed)


@app.command()
def text(data_folder: Data = DATA, work: Work = WORK, steps: int = 1000, seed: int = 0) -> None:
    """Train the text tower and the map of the teacher's features, or go on with it."""
    train_text.train(data_folder, work, steps=steps, seed=seed)


@app.command()
def image(
    data_folder: Data = DATA,
    work: Work = WORK,
    steps: int = 3500,
    joint: bool = True,
    seed: int = 0,
) -> None:
    """Train the image tower, or go on with it; --no-joint needs no text tower yet."""
    train_image.train(data_folder, work, steps=steps, joint=joint, seed=seed)


@app.command(name="pack")
def pack_assets(work: Work = WORK, text_only: bool = False) -> None:
    """Write fedprompt/assets from the checkpoints."""
    pack.pack_text(work)
    if not text_only:
        pack.pack_image(work)


@app.command()
def expand(name: str, folder: Path) -> None:
    """Write an embedded model as a folder that open_clip itself loads."""
    pack.expand(name, folder)


if __name__ == "__main__":
    app()
