"""Remember who misbehaved: strikes, and the sites that sit out for them.

A site with ``limit`` strikes is not asked for some rounds, neither to train nor to evaluate; then
it is asked again with half its strikes, so that a mended site comes back and a hostile one goes
sooner the next time. A link may die while a reply is on its way: a reply that was announced and did
not come whole is a strike only if another did so not long before. All of it is in the checkpoint: a
resumed run treats every site the same.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from server.gate.verdict import Reason, Verdict


@dataclass(frozen=True)
class Conduct:
    """Hold what the sites did so far."""

    strikes: Mapping[int, int] = field(default_factory=dict)  # by site
    quarantined: Mapping[int, int] = field(default_factory=dict)  # site -> last round it sits out
    withheld: Mapping[int, int] = field(default_factory=dict)  # site -> last round it did so in

    def strike(
        self, verdicts: Iterable[Verdict], server_round: int, limit: int, rounds: int
    ) -> "Conduct":
        """Count the offences of a round; a site that reaches the limit sits out from now on.

        Parameters
        ----------
        limit
            Strikes that are too many; 0 = any number is borne.
        rounds
            How many of the rounds after this one a site sits out, and how many before it a first
            withheld reply is remembered.
        """
        strikes, quarantined = dict(self.strikes), dict(self.quarantined)
        withheld = dict(self.withheld)
        for verdict in verdicts:
            site, offence = verdict.site, verdict.strike
            if site is None:
                continue
            if Reason.WITHHELD in verdict.reasons:
                offence = site in withheld and withheld[site] >= server_round - rounds
                withheld[site] = server_round
            if offence:
                strikes[site] = strikes.get(site, 0) + 1
                if limit and strikes[site] >= limit:
                    quarantined[site] = server_round + rounds
        return Conduct(strikes, quarantined, withheld)

    def release(self, server_round: int) -> "Conduct":
        """Let back in, with half their strikes, the sites that have sat out before this round."""
        free = {site for site, last in self.quarantined.items() if last < server_round}
        halved = {site: self.strikes.get(site, 0) // 2 for site in free}
        strikes = {site: n for site, n in {**self.strikes, **halved}.items() if n}
        still = {site: last for site, last in self.quarantined.items() if site not in free}
        return replace(self, strikes=strikes, quarantined=still)
