"""Read a run's record, believing nothing: every line is checked before a figure is made of it."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedprompt.errors import CheckpointError

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]


class Entry(BaseModel):
    """Refuse wrong types and numbers that are not finite; leave unknown keys alone."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)


class SiteScore(Entry):
    """Hold one site's result on its own held-out images."""

    accuracy: Share
    examples: Count


class Measure(Entry):
    """Hold how far one site's update lay from the merged one."""

    distance: float
    cosine: float


class Verdict(Entry):
    """Hold what the gate said of one reply."""

    site: int | None
    node: int
    accepted: bool
    reasons: tuple[str, ...]
    detail: str = ""


class Line(Entry):
    """Hold one round as ``server.rounds`` wrote it; round 0 is the untrained prompt."""

    round: Count
    run: str = ""
    prompt: str = ""  # hash of the prompt after this round
    seconds: float = 0.0

    joined: tuple[int, ...] = ()  # round 0 only
    asked: tuple[int, ...] = ()
    answered: tuple[int, ...] = ()
    accepted: tuple[int, ...] = ()
    nodes: dict[int, int] = {}  # node id by site
    strikes: dict[int, Count] = {}  # so far, by site
    quarantined: tuple[int, ...] = ()  # not asked in the next round
    outliers: dict[int, Measure] = {}  # of the updates that were merged, by site

    refused: tuple[Verdict, ...] = ()  # nodes that were not let in; round 0 only
    verdicts: tuple[Verdict, ...] = ()
    evaluation_verdicts: tuple[Verdict, ...] = ()

    accuracy: Share | None = None  # absent where the round was not evaluated
    nll: float | None = None  # of held-out images, nats
    loss: float | None = None  # of training, nats
    sites: dict[int, SiteScore] = {}
    information_density: float | None = None
    truncation_error: float | None = None
    truncation_of_change: float | None = None
    change_rank: Count | None = None

    bytes_up: Count = 0  # training
    bytes_down: Count = 0
    evaluation_bytes_up: Count = 0
    evaluation_bytes_down: Count = 0
    join_bytes_up: Count = 0
    join_bytes_down: Count = 0


def read_lines(path: Path) -> tuple[list[Line], bool]:
    """Return the rounds of a record, and whether a torn last line was left out.

    A run that was killed while it wrote leaves such a line; resuming drops it too.

    Raises
    ------
    CheckpointError
        A line is damaged, or a round is missing.
    """
    try:
        content = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise CheckpointError(f"{path} could not be read: {error.strerror}") from None
    texts = content.splitlines()
    torn = bool(texts) and not content.endswith(b"\n") and not _is_whole(texts[-1])
    lines = [_parse(text, path, i) for i, text in enumerate(texts[:-1] if torn else texts)]
    return lines, torn


def explain(error: ValidationError) -> str:
    """Return the first thing that is wrong, with the place where it stands."""
    first = error.errors(include_url=False, include_context=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}" if place else first["msg"]


def _is_whole(text: bytes) -> bool:
    try:
        Line.model_validate_json(text)
    except ValidationError as error:
        return error.errors()[0]["type"] != "json_invalid"
    return True


def _parse(text: bytes, path: Path, expected_round: int) -> Line:
    try:
        line = Line.model_validate_json(text)
    except ValidationError as error:
        raise CheckpointError(
            f"{path}, line {expected_round + 1} is damaged ({explain(error)}); expected the line "
            f"of round {expected_round}. Continue the run with --resume, or mend or delete the file"
        ) from None
    if line.round != expected_round:
        raise CheckpointError(
            f"{path}, line {expected_round + 1} holds round {line.round}, expected round "
            f"{expected_round}; rounds are missing or were written twice"
        )
    return line
