"""Say where downloads and computed features are kept between runs."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return ``$FEDPROMPT_CACHE``, or ``~/.cache/fedprompt``; it may not exist yet."""
    chosen = os.environ.get("FEDPROMPT_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "fedprompt"
