"""TensorBoard: event files in the folder ``tensorboard`` of the run."""

from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from fedprompt.round_record import RoundRecord
from fedprompt.run_folder import RunFolder
from fedprompt.settings.section import Flat
from server.run_folder.trackers.tracker import figures


class TensorBoard:
    """Write a run's rounds as scalars.

    Parameters
    ----------
    folder
        ``server.output`` of the run.
    settings
        What the run was asked for; shown as text.
    last
        The last committed round of a run that is resumed: it and what follows are told anew, and
        TensorBoard hides what an interrupted run wrote of them before.
    """

    def __init__(self, folder: Path, settings: Flat, last: RoundRecord | None) -> None:
        self._folder = str(RunFolder(folder).tensorboard)
        purge = None if last is None else last.round
        self._writer: SummaryWriter | None = SummaryWriter(self._folder, purge_step=purge)
        if last is None:
            lines = [f"    {key} = {value!r}" for key, value in sorted(settings.items())]
            self._writer.add_text("settings", "\n".join(lines))

    def log(self, record: RoundRecord) -> None:
        """Write one round; a writer that failed is dead, and the next call opens another."""
        writer = self._writer or SummaryWriter(self._folder, purge_step=record.round)
        self._writer = None
        for name, value in figures(record).items():
            writer.add_scalar(name, value, record.round)
        writer.flush()
        self._writer = writer

    def close(self, *, done: bool) -> None:  # noqa: ARG002
        """Close the event file."""
        if self._writer:
            self._writer.close()
