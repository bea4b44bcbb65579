"""Find what a run's folder recorded of the round that a prompt came from."""

from dataclasses import dataclass
from pathlib import Path

from fedprompt.artefact import Artefact
from fedprompt.errors import CheckpointError
from fedprompt.identity import sha256_arrays
from fedprompt.round_record import RoundRecord
from fedprompt.run_folder import RunFolder
from fedprompt.settings.section import Flat


@dataclass(frozen=True)
class RunRecord:
    """Hold a run's settings, the round that made a prompt, and round 0 if it is recorded."""

    settings: Flat
    first: RoundRecord | None
    last: RoundRecord

    @classmethod
    def find(cls, given: Path, artefact: Artefact) -> "RunRecord | None":
        """Return the record of an artefact, or None where nothing here tells of it.

        Parameters
        ----------
        given
            Folder of a run, or of the artefact in it.
        artefact
            What was read from there; a round counts only if it has this prompt's hash.
        """
        run = RunFolder.around(given)
        try:
            records = run.records()
        except CheckpointError:
            return None
        prompt = sha256_arrays(artefact.trained)
        made = [record for record in records if record.prompt == prompt]
        first = next((record for record in records if record.round == 0), None)
        return cls(run.settings(), first, made[-1]) if made else None
