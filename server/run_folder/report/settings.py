"""List what a run was made of: its settings and its hashes."""

from collections.abc import Iterator, Mapping
from typing import Any

from server.run_folder.report.run import Run

Row = tuple[str, str]
_APART = frozenset({"classes", "trained"})  # long lists; the classes are shown by themselves


def setting_rows(run: Run) -> list[Row]:
    """Return every setting that is known: the run's own, then what the artefact adds."""
    known = dict(run.settings)
    if known.get("privacy.noise_multiplier") == 0:  # its budget would read as a promise
        known = {key: value for key, value in known.items() if not key.startswith("privacy.")}
        known["privacy"] = "off"
    rows = [(key, _show(value)) for key, value in sorted(known.items())]
    described = _flatten(run.artefact.metadata) if run.artefact else iter(())
    return rows + [(key, value) for key, value in described if not _is_hash(key)]


def hash_rows(run: Run) -> list[Row]:
    """Return the identities of the run, its prompt and all that the prompt belongs to."""
    rows = []
    if run.records:
        last = run.records[-1]
        rows = [("run", last.run), ("prompt after the last round", last.prompt)]
    if run.artefact:
        rows.append(("artefact", run.artefact.sha256))
        rows += [row for row in _flatten(run.artefact.metadata) if _is_hash(row[0])]
    return [row for row in rows if row[1]]


def _flatten(table: Mapping[str, Any], prefix: str = "") -> Iterator[Row]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        elif prefix or key not in _APART:
            yield f"{prefix}{key}", _show(value)


def _is_hash(key: str) -> bool:
    return key.endswith("sha256") or key == "parent"


def _show(value: object) -> str:
    if value is None or value == "":
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(_show(item) for item in value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)
