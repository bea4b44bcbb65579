"""Keep a site's own prompt on its disk, a file for each round it was tuned in.

A round may be asked for again: a retry, a resumed server, a site that died before its reply left.
So a round starts at what the last round before it left, never at what its own first try left; and
whoever asks for a round says that the later ones never were.
"""

import logging
import re
from pathlib import Path

from fedprompt import tensor_file
from fedprompt.errors import ArtefactError, StorageError
from fedprompt.identity import sha256_bytes
from fedprompt.prompt_state import PromptState
from fedprompt.storage import write_atomic

# A server falls back by two rounds at most (it keeps three), and may have asked for one more.
KEPT = 4
_NAME = re.compile(r"round-(\d{5,})-([0-9a-f]{16})\.safetensors")
_log = logging.getLogger(__name__)


class LocalState:
    """Hold the files of one site in one run.

    Two runs of the same settings at the same time are one run here: give each its own
    ``FEDPROMPT_CACHE``.

    Parameters
    ----------
    root
        Where this site's machine keeps local prompts.
    run
        The run's digest; what a server writes there is hashed before it names a folder.
    site
        This site's number.
    """

    def __init__(self, root: Path, run: str, site: int) -> None:
        self.folder = root / sha256_bytes(run.encode())[:32] / f"site-{site:05d}"

    def before(self, server_round: int) -> PromptState | None:
        """Return the prompt after the last round before ``server_round``; None if there is none.

        A damaged file is passed over for the one before it, and named in the log.
        """
        for number, path in reversed(self._files()):
            if number < server_round and (found := _read(path)) is not None:
                return found
        return None

    def commit(self, server_round: int, arrays: PromptState) -> None:
        """Keep the prompt as a round left it; forget that round's earlier tries and later rounds.

        Raises
        ------
        StorageError
            The disk is full or read-only; the rounds before this one stay.
        """
        self.forget(server_round)
        data = tensor_file.dump(arrays)
        name = f"round-{server_round:05d}-{sha256_bytes(data)[:16]}.safetensors"
        write_atomic(self.folder / name, data)
        for _, path in self._files()[:-KEPT]:
            path.unlink(missing_ok=True)

    def forget(self, server_round: int) -> None:
        """Remove what this round and later ones left.

        Raises
        ------
        StorageError
            The folder may not be changed.
        """
        try:
            for number, path in self._files():
                if number >= server_round:
                    path.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(
                f"{self.folder} cannot be changed: {error.strerror}; make it writable"
            ) from error

    def _files(self) -> list[tuple[int, Path]]:
        """Return the files by round, the oldest first."""
        found = [(_NAME.fullmatch(path.name), path) for path in self.folder.glob("round-*")]
        return sorted((int(match[1]), path) for match, path in found if match)


def _read(path: Path) -> PromptState | None:
    """Return the arrays of a file; None, and a warning, if it is damaged."""
    try:
        data = path.read_bytes()
        if sha256_bytes(data)[:16] not in path.name:
            raise ArtefactError("its hash is not the one in its name")
        return PromptState(tensor_file.parse(data))
    except (OSError, ArtefactError) as error:
        _log.warning(
            "%s is damaged (%s); the local prompt of an earlier round is used", path, error
        )
        return None
