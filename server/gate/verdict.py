"""What the gate is told, and what it says: replies, verdicts and the codes of their reasons."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from fedprompt.prompt_state import PromptState
from fedprompt.round_record import RecordedVerdict
from fedprompt.text import one_line
from server.merge.rules import Dense


class Reason(StrEnum):
    """Why a reply was refused or changed; the code that lands in the round record."""

    NOT_FINITE = "not-finite"  # F01
    MISSING_ARRAY = "missing-array"  # F02
    EXTRA_ARRAY = "extra-array"  # F02
    WRONG_SHAPE = "wrong-shape"  # F02
    WRONG_DTYPE = "wrong-dtype"  # F02
    MALFORMED = "malformed"  # F02: other records or metrics than agreed
    WRONG_SIZE = "wrong-size"  # F03
    OVERSIZED = "oversized"  # F04
    NORM = "norm"  # F05
    OUT_OF_RANGE = "out-of-range"  # F01: a finite loss that no images can give
    BAD_COUNT = "bad-count"  # F06
    STALE = "stale"  # F11: bound to an earlier round
    DUPLICATE = "duplicate"  # F11
    IDENTITY = "identity"  # F12-F14
    ERROR = "error"  # the site's code raised
    DECLINED = "declined"  # the site's own policy forbids to answer
    TIMEOUT = "timeout"  # F18: no reply by the deadline
    WITHHELD = "withheld"  # F18: a reply was announced and did not come whole by the deadline
    TRESPASS = "trespass"  # F15: the site reached for what is another's
    PROTOCOL = "protocol"  # F29: secure aggregation broke at this site, by whose fault is unknown
    COPIED = "copied"  # F10: another site's update, bit for bit
    CLIPPED = "clipped"  # accepted, its update shortened (F05)
    CAPPED = "capped"  # accepted with a strike, its count cut to the enrolled size (F06)
    UNAGREED = "unagreed"  # accepted, its count cut: nobody agreed on so many images (F06)
    ABSTAINED = "abstained"  # accepted, without weight: no examples
    UNCHANGED = "unchanged"  # accepted, though the arrays came back as they were sent (F10)
    HOLDING = "holding"  # accepted, unchanged and heavy: it holds the merged prompt back (F10)


# a lost link is no offence, nor is one that delivers twice, nor a site's use of its rights;
# a copied site is no copyist; a reply that did not come whole is one only if it is not the first
NO_STRIKE = frozenset(
    {
        *(Reason.TIMEOUT, Reason.WITHHELD, Reason.PROTOCOL),
        *(Reason.DUPLICATE, Reason.COPIED, Reason.DECLINED),
    }
)


@dataclass(frozen=True)
class Asked:
    """Say what a reply of one asked site must carry."""

    site: int
    receipt: int
    enrolled: int  # examples declared when the site joined, no more than agreed
    is_stale: Callable[[object], bool]  # whether a receipt is one of this site's earlier rounds
    agreed: bool = False  # whether `enrolled` is more than the site's own word


@dataclass(frozen=True)
class Reply:
    """Hold one reply as it came, unpacked but not yet believed."""

    node: int
    refusal: tuple[Reason, str] | None = None  # found wrong while unpacking
    arrays: PromptState | None = None
    count: object = None
    receipt: object = None
    loss: object = None  # None: the site does not tell
    digest: str = ""  # of the arrays as they arrived


@dataclass(frozen=True)
class Accepted:
    """Hold one update that may be merged: lifted, clipped, with a believable weight."""

    site: int
    node: int
    update: Dense
    weight: int
    loss: float | None  # nats; None where the site does not tell


@dataclass(frozen=True)
class Verdict:
    """Say what became of one reply."""

    site: int | None  # None: a node that was not asked
    node: int
    accepted: bool
    reasons: tuple[Reason, ...] = ()
    detail: str = ""  # one printable line, whatever of it is a site's own text

    def __post_init__(self) -> None:
        object.__setattr__(self, "detail", one_line(self.detail))

    @property
    def strike(self) -> bool:
        """Tell whether the site is to blame."""
        offence = not self.accepted or Reason.CAPPED in self.reasons
        return offence and NO_STRIKE.isdisjoint(self.reasons)

    @property
    def diverged(self) -> bool:
        """Tell whether the reply is what too high a learning rate ends in."""
        beyond = not {Reason.NOT_FINITE, Reason.NORM, Reason.OUT_OF_RANGE}.isdisjoint(self.reasons)
        return not self.accepted and (beyond or "fit.learning_rate" in self.detail)


def recorded(verdicts: Iterable[Verdict]) -> tuple[RecordedVerdict, ...]:
    """Return verdicts as they stand in the record."""
    return tuple(
        RecordedVerdict(
            site=verdict.site,
            node=verdict.node,
            accepted=verdict.accepted,
            reasons=tuple(str(reason) for reason in verdict.reasons),
            detail=verdict.detail,
        )
        for verdict in verdicts
    )


def listed(verdicts: Iterable[Verdict], most: int = 10) -> str:
    """Return what was refused in one line; what several sites are refused for is told once."""
    senders: dict[tuple[str, str], list[str]] = {}
    for verdict in verdicts:
        who = f"node {verdict.node}" if verdict.site is None else f"site {verdict.site}"
        senders.setdefault((", ".join(verdict.reasons), verdict.detail), []).append(who)
    told = [
        f"{', '.join(who[:most])}{' ...' if who[most:] else ''}: {reasons} ({detail})"
        for (reasons, detail), who in senders.items()
    ]
    return "; ".join(told[:most]) + (" ..." if told[most:] else "")


def refuse(site: int | None, node: int, reason: Reason, detail: str) -> Verdict:
    """Return the verdict that drops a reply."""
    return Verdict(site, node, False, (reason,), detail)
