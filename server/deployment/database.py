"""Let the SuperLink wait for its own database.

A hundred sites that answer at once write to one SQLite file from as many threads. Flower 1.41 gives
up on a write that waits for over 5 s, and what a site sent is lost: on a busy machine one reply of
a hundred was. `flwr.supercore.sql_mixin` is not public; the one name that says so is replaced here.
"""

from flwr.supercore import sql_mixin

PATIENCE = 60.0  # seconds a write may wait for others; as long as Flower's requests may take

_PRAGMAS, _TIMEOUT = "SQLITE_PRAGMAS", "busy_timeout"  # the latter in ms


def be_patient(seconds: float = PATIENCE) -> None:
    """Let every connection that is opened from now on wait so long."""
    given = dict[str, str](getattr(sql_mixin, _PRAGMAS))
    patient = given | {_TIMEOUT: str(round(1000 * seconds))}
    setattr(sql_mixin, _PRAGMAS, tuple(patient.items()))
