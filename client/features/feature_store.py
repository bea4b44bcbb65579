"""Keep image features on disk, so that no site ever encodes an image twice.

A row is found by backbone, preprocessing and the content of the file: renamed images are found
again, changed ones are not. SQLite, so that several processes of one machine can share it.
"""

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedprompt.data.cache import cache_folder
from fedprompt.errors import StorageError

Features = npt.NDArray[np.float32]
_TIMEOUT = 60.0  # seconds to wait for another process's write
_AT_ONCE = 500  # keys in one query; SQLite takes 999 at least


class FeatureStore:
    """Map image digests to feature vectors for one backbone and preprocessing.

    Parameters
    ----------
    key
        Hash of backbone and preprocessing.
    folder
        Where the database lies; the user's cache by default.
    """

    def __init__(self, key: str, folder: Path | None = None) -> None:
        self.path = (folder or cache_folder() / "features") / f"{key[:32]}.sqlite"
        with self._open() as database:
            database.execute(
                "create table if not exists features "
                "(digest text primary key, vector blob not null) without rowid"
            )

    def read(self, digests: Sequence[str]) -> dict[str, Features]:
        """Return the known vectors among ``digests``."""
        found: dict[str, Features] = {}
        with self._open() as database:
            for start in range(0, len(digests), _AT_ONCE):
                part = digests[start : start + _AT_ONCE]
                marks = ",".join("?" * len(part))
                rows = database.execute(
                    f"select digest, vector from features where digest in ({marks})",  # noqa: S608
                    part,
                )
                found |= {digest: np.frombuffer(blob, np.float32) for digest, blob in rows}
        return found

    def write(self, vectors: Mapping[str, Features]) -> None:
        """Keep some vectors; one transaction, so a crash leaves all or none."""
        rows = [
            (digest, np.ascontiguousarray(vector, np.float32).tobytes())
            for digest, vector in vectors.items()
        ]
        with self._open() as database:
            database.executemany("insert or ignore into features values (?, ?)", rows)

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            database = sqlite3.connect(self.path, timeout=_TIMEOUT)
            try:
                with database:
                    yield database
            finally:
                database.close()
        except (sqlite3.Error, OSError, ValueError) as error:  # ValueError: a torn vector
            raise StorageError(
                f"the feature cache {self.path} cannot be used: {error}; free some space, remove "
                "the file, set FEDPROMPT_CACHE to another folder, or set fit.cache = false"
            ) from error
