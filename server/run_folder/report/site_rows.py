"""Say how each site fared, and keep quiet about sites with too few images."""

from collections.abc import Sequence
from dataclasses import dataclass

from fedprompt.round_record import RoundRecord, SiteScore

LEAST_SHOWN = 5  # held-out images; with fewer a count or an accuracy could point at a person


@dataclass(frozen=True, kw_only=True)
class SiteRow:
    """Hold one line of the table of sites."""

    site: int
    node: int | None
    images: int | None  # held out; None where the site reported none
    small: bool  # too few images to show their count or what was got right
    accuracy: float | None
    gain: float | None  # over round 0
    joined: int | None  # the first round it was there
    left: int | None  # the last round it was there, if that was not the run's last
    strikes: int
    answered: int  # rounds
    asked: int  # rounds


def is_shown(score: SiteScore) -> bool:
    """Tell whether a site has enough held-out images for its results to be shown."""
    return score.examples >= LEAST_SHOWN


def site_rows(records: Sequence[RoundRecord]) -> list[SiteRow]:
    """Return one row a site, by site."""
    seen = {site for record in records for site in (*record.nodes, *record.asked, *record.sites)}
    return [_row(site, records) for site in sorted(seen)]


def shown_sites(records: Sequence[RoundRecord]) -> set[int]:
    """Return the sites whose results may be shown: enough images in every evaluation."""
    scored = [(site, score) for record in records for site, score in record.sites.items()]
    return {site for site, _ in scored} - {site for site, s in scored if not is_shown(s)}


def _row(site: int, records: Sequence[RoundRecord]) -> SiteRow:
    present = [record for record in records if site in record.nodes]
    evaluated = [record for record in records if record.sites]
    last = evaluated[-1].sites.get(site) if evaluated else None
    small = last is not None and site not in shown_sites(evaluated)
    shown = None if small else last
    return SiteRow(
        site=site,
        node=present[-1].nodes[site] if present else None,
        images=shown.examples if shown else None,
        small=small,
        accuracy=shown.accuracy if shown else None,
        gain=_gain(site, records, shown),
        joined=present[0].round if present else None,
        left=present[-1].round if present and present[-1] is not records[-1] else None,
        strikes=records[-1].strikes.get(site, 0),
        answered=sum(site in record.answered for record in records),
        asked=sum(site in record.asked for record in records),
    )


def _gain(site: int, records: Sequence[RoundRecord], last: SiteScore | None) -> float | None:
    first = records[0].sites.get(site)
    return None if first is None or last is None else last.accuracy - first.accuracy
