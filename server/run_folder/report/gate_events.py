"""List what the gate refused or changed, by reason and by site."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from fedprompt.round_record import RecordedVerdict, RoundRecord

MEANINGS = {
    "not-finite": "numbers that are not finite",
    "missing-array": "an array is missing",
    "extra-array": "an array too many",
    "wrong-shape": "an array of another shape",
    "wrong-dtype": "an array of another dtype",
    "malformed": "other records than agreed",
    "wrong-size": "an array's bytes do not fit its shape",
    "oversized": "a message far too large",
    "norm": "an update far longer than the others, or beyond what a prompt can hold",
    "out-of-range": "a loss that no images can give",
    "bad-count": "an impossible number of images",
    "stale": "a reply to an earlier round",
    "duplicate": "a second reply",
    "identity": "another backbone, class list, version or run",
    "error": "the site's code raised an error",
    "declined": "the site's own policy forbids to answer",
    "timeout": "no reply by the deadline",
    "withheld": "a reply announced and not sent whole; a strike if it happens again",
    "trespass": "the site reached for what is another's",
    "clipped": "an update shortened to the bound",
    "capped": "more images than the site was enrolled with; cut to them, with a strike",
    "unagreed": "more images than twice the median, on the site's own word; cut to that",
    "protocol": "secure aggregation broke off there",
    "copied": "another site's update, bit for bit; counted once",
    "abstained": "no images; the reply has no weight",
    "unchanged": "the arrays came back as they were sent",
    "holding": "unchanged, with much of the round's weight: it holds the prompt back",
}
_OF_COUNTS = frozenset(
    {"bad-count", "capped", "unagreed"}
)  # their detail tells how many images a site has


@dataclass(frozen=True)
class Event:
    """Hold one reply that was refused or changed."""

    round: int
    phase: str  # joining, start, training or evaluation
    site: int | None
    node: int
    accepted: bool
    reasons: tuple[str, ...]
    detail: str


@dataclass(frozen=True)
class ReasonRow:
    """Count the replies with one reason."""

    reason: str
    meaning: str
    refused: bool
    replies: int
    senders: tuple[tuple[str, int], ...]  # who, how often; the most frequent first


def gate_events(records: Sequence[RoundRecord], shown: set[int]) -> list[Event]:
    """Return every event in order.

    Parameters
    ----------
    shown
        Sites whose image counts may be shown.
    """
    return [event for record in records for event in _events(record, shown)]


def by_reason(events: Iterable[Event]) -> list[ReasonRow]:
    """Return one row a reason: refusals first, the most frequent first."""
    senders: dict[tuple[bool, str], Counter[str]] = {}
    for event in events:
        for reason in event.reasons:
            senders.setdefault((not event.accepted, reason), Counter())[_sender(event)] += 1
    rows = [
        ReasonRow(reason, MEANINGS.get(reason, ""), refused, who.total(), tuple(who.most_common()))
        for (refused, reason), who in senders.items()
    ]
    return sorted(rows, key=lambda row: (not row.refused, -row.replies, row.reason))


def _events(record: RoundRecord, shown: set[int]) -> Iterator[Event]:
    for phase, verdicts in record.phases():
        for v in verdicts:
            detail = v.detail if _may_tell(v, shown) else "not shown: few images"
            yield Event(record.round, phase, v.site, v.node, v.accepted, v.reasons, detail)


def _may_tell(verdict: RecordedVerdict, shown: set[int]) -> bool:
    return verdict.site in shown or _OF_COUNTS.isdisjoint(verdict.reasons)


def _sender(event: Event) -> str:
    return f"node {event.node}" if event.site is None else f"site {event.site}"
