"""Reduce a run to the figures that stand at the top of its page."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fedprompt.artefact import Artefact
from server.report.lines import Line
from server.report.run_folder import trained_arrays
from server.report.site_rows import is_shown

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


def headline(lines: Sequence[Line], artefact: Artefact | None) -> Headline:
    """Return the main figures of a run; round 0 is zero-shot CLIP."""
    evaluated = [line for line in lines if line.accuracy is not None]
    worst = _worst(evaluated[-1]) if evaluated else None
    replies = sum(len(line.answered) for line in lines)
    training = Traffic(up=sum(x.bytes_up for x in lines), down=sum(x.bytes_down for x in lines))
    return Headline(
        zero_shot_accuracy=lines[0].accuracy if lines else None,
        accuracy=evaluated[-1].accuracy if evaluated else None,
        worst_client_acc=worst[0] if worst else None,
        worst_site=worst[1] if worst else None,
        sites=len({site for line in lines for site in line.nodes}),
        rounds=lines[-1].round if lines else 0,
        numbers=_numbers(artefact),
        message_bytes=training.up / replies if replies else None,
        training=training,
        total=_total(lines),
        whole_model=_whole_model(lines, artefact),
        seconds=sum(line.seconds for line in lines),
    )


def _worst(line: Line) -> tuple[float, int] | None:
    shown = [(score.accuracy, site) for site, score in line.sites.items() if is_shown(score)]
    return min(shown, default=None)


def _total(lines: Sequence[Line]) -> Traffic:
    return Traffic(
        up=sum(x.bytes_up + x.evaluation_bytes_up + x.join_bytes_up for x in lines),
        down=sum(x.bytes_down + x.evaluation_bytes_down + x.join_bytes_down for x in lines),
    )


def _numbers(artefact: Artefact | None) -> int | None:
    """Return how many numbers travel; the start and a frozen basis stay at home."""
    if artefact is None:
        return None
    return sum(array.size for array in trained_arrays(artefact).values())


def _whole_model(lines: Sequence[Line], artefact: Artefact | None) -> Traffic | None:
    parameters = artefact.metadata["backbone"].get("parameters") if artefact else None
    if not isinstance(parameters, int) or parameters < 1:
        return None
    model = BYTES_A_NUMBER * parameters
    return Traffic(
        up=model * sum(len(line.answered) for line in lines),
        down=model * sum(len(line.asked) for line in lines),
    )
