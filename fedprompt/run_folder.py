"""A run's folder: what lies where in it, its record and its settings."""

import os
from collections.abc import Iterator
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from fedprompt import artefact
from fedprompt.errors import CheckpointError, ConfigError, StorageError
from fedprompt.identity import canonical_json
from fedprompt.round_record import RoundRecord, explain
from fedprompt.settings.section import Flat
from fedprompt.storage import write_atomic

_SCORING = ("backbone.", "data.", "fit.")  # settings that scoring and exporting a prompt need


class RunFolder:
    """Name every file of a run's folder, and read and write its record and settings.

    Parameters
    ----------
    path
        ``server.output`` of the run; nothing need be there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.record = path / "rounds.jsonl"  # a line a round
        self.settings_file = path / "settings.json"  # what the run was asked for
        self.checkpoints = path / "checkpoints"
        self.ledger = path / "privacy.jsonl"  # the releases that were accounted for
        self.outcome = path / "outcome.json"  # how the run ended
        self.artefact = path / artefact.FOLDER
        self.predictions = path / "predictions.json"  # of ``fedprompt eval``
        self.report = path / "report.html"
        self.tensorboard = path / "tensorboard"
        self.mlflow = path / "mlflow.db"

    @classmethod
    def around(cls, path: Path) -> "RunFolder":
        """Return the run's folder, given it or the artefact in it."""
        place = path.resolve()
        return cls(place.parent if place.name == artefact.FOLDER else place)

    def is_run(self) -> bool:
        """Tell whether a run was begun here."""
        return self.record.is_file() or self.settings_file.is_file()

    # the record

    def records(self) -> list[RoundRecord]:
        """Return the whole rounds of the record; a torn or damaged line is left out.

        Raises
        ------
        CheckpointError
            The file is there and cannot be read.
        """
        return [record for _, record in self._lines()]

    def last(self) -> RoundRecord | None:
        """Return the last whole round of the record; None before there is one."""
        return next(iter(self.records()[-1:]), None)

    def checked_records(self) -> tuple[list[RoundRecord], bool]:
        """Return the rounds of the record, and whether a torn last line was left out.

        A run that was killed while it wrote leaves such a line; resuming drops it too.

        Raises
        ------
        CheckpointError
            A line is damaged, or a round is missing.
        """
        content = _read(self.record) or b""
        lines = content.splitlines()
        torn = bool(lines) and not content.endswith(b"\n") and not _is_whole(lines[-1])
        found = lines[:-1] if torn else lines
        return [self._checked(line, number) for number, line in enumerate(found)], torn

    def append(self, record: RoundRecord) -> None:
        """Add a round and make it last; it counts once its checkpoint is in place.

        Raises
        ------
        StorageError
            The disk is full or read-only.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with self.record.open("ab") as file:
                file.write(record.to_json())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise StorageError(f"{self.record} could not be extended: {error.strerror}") from error

    def truncate(self, last_round: int) -> None:
        """Drop the rounds that were written but never committed, and damaged lines."""
        kept = [line + b"\n" for line, record in self._lines() if record.round <= last_round]
        write_atomic(self.record, b"".join(kept))

    def _lines(self) -> Iterator[tuple[bytes, RoundRecord]]:
        for line in (_read(self.record) or b"").splitlines():
            if record := parse(line):  # else its writer was killed, or the disk lost it
                yield line, record

    def _checked(self, line: bytes, expected: int) -> RoundRecord:
        try:
            record = RoundRecord.model_validate_json(line)
        except ValidationError as error:
            raise CheckpointError(
                f"{self.record}, line {expected + 1} is damaged ({explain(error)}); expected the "
                f"line of round {expected}. Continue the run with --resume, or mend or delete the "
                "file"
            ) from None
        if record.round != expected:
            raise CheckpointError(
                f"{self.record}, line {expected + 1} holds round {record.round}, expected round "
                f"{expected}; rounds are missing or were written twice"
            )
        return record

    # the settings

    def settings(self) -> Flat:
        """Return the settings that the run was begun with; none if they are missing or damaged."""
        try:
            return self.checked_settings()
        except CheckpointError:
            return {}

    def checked_settings(self) -> Flat:
        """Return the settings that the run was begun with; none if there are none.

        Raises
        ------
        CheckpointError
            The file is damaged.
        """
        content = _read(self.settings_file)
        try:
            return {} if content is None else TypeAdapter(Flat).validate_json(content)
        except ValidationError as error:
            raise CheckpointError(
                f"{self.settings_file} is damaged ({explain(error)}); delete it"
            ) from None

    def scoring_settings(self) -> Flat:
        """Return what the run's settings say of backbone, images and fitting; {} without a run.

        Raises
        ------
        ConfigError
            The file is damaged.
        """
        try:
            settings = self.checked_settings()
        except CheckpointError as error:
            raise ConfigError(f"{error} and give --config") from None
        return {key: value for key, value in settings.items() if key.startswith(_SCORING)}

    def write_settings(self, settings: Flat) -> None:
        """Write what the run is asked for."""
        write_atomic(self.settings_file, canonical_json(settings))


def parse(line: bytes) -> RoundRecord | None:
    """Return the round of a line; None if the line is torn or damaged."""
    try:
        return RoundRecord.model_validate_json(line)
    except ValidationError:
        return None


def _is_whole(line: bytes) -> bool:
    try:
        RoundRecord.model_validate_json(line)
    except ValidationError as error:
        return error.errors()[0]["type"] != "json_invalid"
    return True


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckpointError(f"{path} could not be read: {error.strerror}") from None
