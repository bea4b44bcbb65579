"""Know which receipt a site must return, and recognise those of earlier rounds."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from fedprompt.wire import identity_digest, receipt
from server.gate.verdict import Asked
from server.joining.admission import Site

_LOOK_BACK = 1000  # rounds a stale receipt is recognised for; older ones count as foreign


@dataclass(frozen=True)
class Receipts:
    """Bind replies to a run and to the identity its sites share."""

    run: str
    identity: Mapping[str, str]

    def ask(self, site: Site, server_round: int) -> Asked:
        """Return what a site's reply to this round must carry."""
        stale = partial(self._is_stale, site, server_round)
        return Asked(site.partition, self.of(site, server_round), site.enrolled, stale, site.agreed)

    def of(self, site: Site, server_round: int) -> int:
        """Return the receipt of one site and round."""
        return receipt(self.run, server_round, site.partition, identity_digest(self.identity))

    def _is_stale(self, site: Site, server_round: int, value: object) -> bool:
        first = max(0, server_round - _LOOK_BACK)
        return any(value == self.of(site, earlier) for earlier in range(first, server_round))
