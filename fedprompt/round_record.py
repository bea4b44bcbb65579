"""One round of a run, as ``rounds.jsonl`` holds it: a line of JSON a round.

The server writes each round as a `RoundRecord`, and everything that looks at a run reads it as one.
A field that a round has no value for is left out of its line; lines of earlier releases lack
fields that are newer. A key that this release does not know is ignored, and stays in the file:
resuming a run copies the lines that it keeps, byte by byte.
"""

import math
from collections.abc import Iterator
from typing import Annotated, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
)

from fedprompt.identity import canonical_json


def _finite(value: object, info: ValidationInfo) -> object:
    """Return None for a computed number that JSON cannot hold; in a file, it is damage."""
    if info.mode == "python" and isinstance(value, float) and not math.isfinite(value):
        return None
    return value


Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Figure = Annotated[float | None, BeforeValidator(_finite)]


class Entry(BaseModel):
    """Refuse wrong types and numbers that are not finite; ignore unknown keys."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)


class SiteScore(Entry):
    """Hold one site's result on its own held-out images."""

    accuracy: Share
    examples: Count
    nll: Figure = None  # nats


class Measure(Entry):
    """Compare one site's update with the merged one; neither depends on the update's scale."""

    distance: float  # to the merged update, over the median of such distances; 1 is usual
    cosine: float  # with the merged update; 0 where one of them is zero


class RecordedVerdict(Entry):
    """Hold what the gate said of one reply."""

    site: int | None = None  # None: a node that was not asked
    node: int
    accepted: bool
    reasons: tuple[str, ...] = ()  # codes
    detail: str = ""


class RoundRecord(Entry):
    """Hold one committed round; round 0 is the untrained prompt.

    A phase of the round fills in its own fields: ``one | other`` has those that either sets.
    """

    round: Count
    run: str = ""  # digest of what must not change between a run and its resumption
    prompt: str = ""  # hash of the prompt after this round
    seconds: float = 0.0  # that the round took
    time: AwareDatetime | None = None  # of the commit, UTC; None in older records
    version: str = ""  # of the fedprompt that wrote it; empty in older records

    # joining: round 0
    joined: tuple[int, ...] = ()
    domains: dict[int, str] = {}  # by site, where the run has any
    refused: tuple[RecordedVerdict, ...] = ()  # nodes that were not let in
    join_bytes_up: Count = 0
    join_bytes_down: Count = 0
    start_sites: tuple[int, ...] = ()  # whose centres the prompt starts from
    start_verdicts: tuple[RecordedVerdict, ...] = ()
    start_bytes_up: Count = 0
    start_bytes_down: Count = 0

    # training: all rounds but 0
    attempt: Count = 0  # tries that failed before this one
    asked: tuple[int, ...] = ()
    answered: tuple[int, ...] = ()
    accepted: tuple[int, ...] = ()
    arrived: dict[int, str] = {}  # hash of the arrays as they came, by site
    verdicts: tuple[RecordedVerdict, ...] = ()  # that have a reason
    outliers: dict[int, Measure] = {}  # of the updates that were merged, by site
    loss: Figure = None  # of training, nats
    truncation_error: Figure = None
    truncation_of_change: Figure = None
    epsilon: Figure = None  # spent so far, where the run is private
    bytes_up: Count = 0
    bytes_down: Count = 0

    # evaluation: the rounds that are evaluated
    accuracy: Share | None = None
    worst_client_acc: Share | None = None
    nll: Figure = None  # of held-out images, nats
    sites: dict[int, SiteScore] = {}
    evaluation_verdicts: tuple[RecordedVerdict, ...] = ()
    evaluation_bytes_up: Count = 0
    evaluation_bytes_down: Count = 0

    # the state after the round
    information_density: Figure = None
    change_rank: Count | None = None
    nodes: dict[int, int] = {}  # node id by site
    strikes: dict[int, Count] = {}  # so far, by site
    quarantined: tuple[int, ...] = ()  # not asked in the next round

    def __or__(self, other: Self) -> Self:
        """Return a record with the fields that either sets; the other's win."""
        fields = {name: getattr(other, name) for name in other.model_fields_set}
        return self.model_copy(update=fields)

    @property
    def total_bytes_up(self) -> int:
        """Return the bytes of all messages from the sites."""
        of_rounds = self.bytes_up + self.evaluation_bytes_up
        return of_rounds + self.join_bytes_up + self.start_bytes_up

    @property
    def total_bytes_down(self) -> int:
        """Return the bytes of all messages to the sites."""
        of_rounds = self.bytes_down + self.evaluation_bytes_down
        return of_rounds + self.join_bytes_down + self.start_bytes_down

    def phases(self) -> Iterator[tuple[str, tuple[RecordedVerdict, ...]]]:
        """Yield what the gate said in each phase of the round."""
        yield "joining", self.refused
        yield "start", self.start_verdicts
        yield "training", self.verdicts
        yield "evaluation", self.evaluation_verdicts

    def to_json(self) -> bytes:
        """Return the record's line."""
        return canonical_json(self.model_dump(mode="json", exclude_unset=True)) + b"\n"

    def summary(self, rounds: int) -> str:
        """Return the round in one plain line, as it appears in a log."""
        parts = [f"round {self.round}/{rounds}"]
        if self.asked:
            parts.append(f"{len(self.accepted)} of {len(self.asked)} sites")
        for name, figure in (
            ("loss", self.loss), ("accuracy", self.accuracy), ("worst", self.worst_client_acc),
        ):  # fmt: skip
            if figure is not None:
                parts.append(f"{name} {figure:.4f}")
        if self.epsilon is not None:
            parts.append(f"epsilon {self.epsilon:.3g}")
        if self.asked:
            parts.append(f"{self.bytes_up:,} bytes up, {self.bytes_down:,} down")
        if refused := [verdict.site for verdict in self.verdicts if not verdict.accepted]:
            parts.append(f"refused sites {refused}")
        return ", ".join([*parts, f"{self.seconds:.1f} s"])


def explain(error: ValidationError) -> str:
    """Return the first thing that is wrong, with the place where it stands."""
    first = error.errors(include_url=False, include_context=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}" if place else first["msg"]
