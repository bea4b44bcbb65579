"""A folder in memory for parsers that take paths."""

import atexit
import functools
import os
import shutil
import tempfile
from pathlib import Path

MEMORY = Path("/dev/shm")  # noqa: S108 (a folder of our own is made below it)
PLACE = "FEDPROMPT_FUZZ_PLACE"  # set by a parent that clears up when its child has died


@functools.cache
def folder(name: str) -> Path:
    """Return an empty folder that is removed when the process ends."""
    place = os.environ.get(PLACE) or (MEMORY if MEMORY.is_dir() else None)
    made = tempfile.mkdtemp(prefix=f"fuzz-{name}-", dir=place)
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return Path(made)
