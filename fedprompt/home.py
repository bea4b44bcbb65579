"""Expand ``~`` in what a person wrote for a path; the edge has no pydantic, so it stands alone."""

import os

_LOCAL = "local-dir:"  # open_clip's prefix of a folder


def at_home(place: str) -> str:
    """Return a path, or what may be one, with ``~`` or ``~user`` in front expanded."""
    prefix = _LOCAL if place.startswith(_LOCAL) else ""
    return prefix + os.path.expanduser(place.removeprefix(prefix))  # noqa: PTH111 (may be no path)
