"""Configurations: TOML files, ``--set`` strings and the settings that a run's folder keeps."""

import os

from fedprompt.run_folder import RunFolder
from fedprompt.settings.run_config import MAX_BYTES, defaults, load_flat
from tests.fuzz.scratch import folder

CAP = MAX_BYTES  # tomllib takes some 3 kB for each nested bracket, up to Python's own depth


def feed(data: bytes) -> None:
    """Read a TOML file, overrides as a shell passes them, or ``settings.json``."""
    kind, rest = (data[0] % 3 if data else 0), data[1:]
    place = folder("config")
    if kind == 0:
        (place / "run.toml").write_bytes(rest)
        load_flat(place / "run.toml")
    elif kind == 1:
        load_flat(None, [os.fsdecode(part) for part in rest.split(b"\n")[:8]])
    else:
        (place / "settings.json").write_bytes(rest)
        RunFolder(place).scoring_settings()


def seeds() -> list[bytes]:
    """Return every setting in each of the three forms."""
    known = defaults()
    sections: dict[str, list[str]] = {}
    for key, value in known.items():
        name, _, field = key.partition(".")
        sections.setdefault(name, []).append(f"{field} = {_toml(value)}")
    files = ["\0[" + name + "]\n" + "\n".join(lines) for name, lines in sections.items()]
    pairs = [f"\1{key}={_toml(value)}" for key, value in list(known.items())[::6]]
    odd = ["\1data.alpha=nan", "\1data.alpha=1e999", "\1data.limit=0x10", "\1data.root='a'"]
    odd += ["\1data.alpha=[[1]]\ndata.seed=2026-01-01", '\2{"data.seed": 1, "x": [null]}']
    return [text.encode() for text in (*files, *pairs, *odd)]


def _toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value).replace("'", '"')
