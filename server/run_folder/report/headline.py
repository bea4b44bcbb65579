"""Reduce a run to the figures that stand at the top of its page."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fedprompt.artefact import Artefact
from fedprompt.round_record import RoundRecord
from server.run_folder.report.site_rows import is_shown

BYTES_A_NUMBER = 4  # float32, as a model's weights travel


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """Count bytes from the sites (up) and to the sites (down)."""

    up: int
    down: int


@dataclass(frozen=True, kw_only=True)
class Headline:
    """Hold a run's main figures; None where the run does not tell."""

    zero_shot_accuracy: float | None
    accuracy: float | None
    worst_client_acc: float | None  # among sites with enough images to be shown
    worst_site: int | None
    sites: int
    rounds: int
    numbers: int | None  # that a site sends each round
    message_bytes: float | None  # of a site's reply, framing included
    training: Traffic
    total: Traffic  # joining and evaluation included
    whole_model: Traffic | None  # had the whole model travelled with every training message
    seconds: float

    @property
    def gain(self) -> float | None:
        """Return how much accuracy rose above zero-shot."""
        if self.accuracy is None or self.zero_shot_accuracy is None:
            return None
        return self.accuracy - self.zero_shot_accuracy

    @property
    def saving(self) -> float | None:
        """Return how many times more bytes the whole model would have taken."""
        spent = self.training.up + self.training.down
        if self.whole_model is None or not spent:
            return None
        return (self.whole_model.up + self.whole_model.down) / spent

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain values."""
        return asdict(self) | {"gain": self.gain, "saving": self.saving}


def headline(records: Sequence[RoundRecord], artefact: Artefact | None) -> Headline:
    """Return the main figures of a run; round 0 is zero-shot CLIP."""
    evaluated = [record for record in records if record.accuracy is not None]
    worst = _worst(evaluated[-1]) if evaluated else None
    replies = sum(len(record.answered) for record in records)
    training = Traffic(up=sum(x.bytes_up for x in records), down=sum(x.bytes_down for x in records))
    return Headline(
        zero_shot_accuracy=records[0].accuracy if records else None,
        accuracy=evaluated[-1].accuracy if evaluated else None,
        worst_client_acc=worst[0] if worst else None,
        worst_site=worst[1] if worst else None,
        sites=len({site for record in records for site in record.nodes}),
        rounds=records[-1].round if records else 0,
        numbers=_numbers(artefact),
        message_bytes=training.up / replies if replies else None,
        training=training,
        total=Traffic(
            up=sum(x.total_bytes_up for x in records),
            down=sum(x.total_bytes_down for x in records),
        ),
        whole_model=_whole_model(records, artefact),
        seconds=sum(record.seconds for record in records),
    )


def _worst(record: RoundRecord) -> tuple[float, int] | None:
    shown = [(score.accuracy, site) for site, score in record.sites.items() if is_shown(score)]
    return min(shown, default=None)


def _numbers(artefact: Artefact | None) -> int | None:
    """Return how many numbers a site sends; the start and a frozen basis stay at home.

    Artefacts of before do not tell: of them everything that was trained was sent.
    """
    if artefact is None:
        return None
    sent = artefact.metadata.get("sent")
    return sent if isinstance(sent, int) else sum(a.size for a in artefact.trained.values())


def _whole_model(records: Sequence[RoundRecord], artefact: Artefact | None) -> Traffic | None:
    parameters = artefact.metadata["backbone"].get("parameters") if artefact else None
    if not isinstance(parameters, int) or parameters < 1:
        return None
    model = BYTES_A_NUMBER * parameters
    return Traffic(
        up=model * sum(len(record.answered) for record in records),
        down=model * sum(len(record.asked) for record in records),
    )
