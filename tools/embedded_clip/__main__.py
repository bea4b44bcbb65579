"""Run the recipe: ``python -m tools.embedded_clip STEP``; see README.md beside this file."""

import logging
from pathlib import Path
from typing import Annotated

import torch
import typer

from tools.embedded_clip import cache, data, pack, solve, train_image, wordnet
from tools.embedded_clip.teacher import load_teacher

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
def text(data_folder: Data = DATA, work: Work = WORK, seed: int = 0) -> None:
    """Solve for the text tower and the joint space: a few minutes, no training."""
    data.decode(data_folder, work)
    wordnet.fetch(work)
    solve.solve(data_folder, work, load_teacher(), seed)


@app.command()
def views(work: Work = WORK, seed: int = 0) -> None:
    """Make the image tower's views and run the teacher over them, once."""
    for copy in COPIES:
        cache.cache_copy(work, copy, seed)


@app.command()
def image(
    data_folder: Data = DATA,
    work: Work = WORK,
    steps: int = 3500,
    from_assets: bool = False,
    copies: int = len(COPIES),
    seed: int = 0,
) -> None:
    """Train the image tower against the text tower, or go on with it."""
    train_image.train(
        data_folder,
        work,
        steps=steps,
        from_assets=from_assets,
        seed=seed,
        copies=COPIES[:copies],
    )


@app.command(name="pack")
def pack_assets(work: Work = WORK, image: bool = True) -> None:
    """Write fedprompt/assets from the checkpoints; --no-image leaves the ViT as it is."""
    pack.pack_text(work)
    pack.pack_cnn(work, load_teacher())
    if image:
        pack.pack_image(work)


@app.command()
def everything(data_folder: Data = DATA, work: Work = WORK, steps: int = 3500) -> None:
    """Run all steps, from the shards and the registries to fedprompt/assets."""
    text(data_folder, work)
    views(work)
    image(data_folder, work, steps)
    pack_assets(work)


@app.command()
def expand(name: str, folder: Path) -> None:
    """Write an embedded model as a folder that open_clip itself loads."""
    pack.expand(name, folder)


if __name__ == "__main__":
    app()
