"""Know the sites: who joined, with which identity, and who is asked this round.

Node ids are random under Flower's Ray engine, so each site says its partition when it joins;
sites are ordered and sampled by partition, which makes every engine ask the same ones.
"""

import logging
import random
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from flwr.app import ConfigRecord, RecordDict
from flwr.serverapp import Grid

from fedprompt.errors import QuorumError
from fedprompt.wire import CONFIG, SHARED, nonce
from server.gate.verdict import Reason, Verdict, listed, refuse
from server.joining.admission import Site, as_enrolled, read_card, remark, with_agreed
from server.joining.enrolment import Enrolment
from server.rounds.exchange import Answer, Traffic, exchange
from server.run_folder import run_status

_log = logging.getLogger("fedprompt.roster")
_PAUSE = 0.5  # seconds between two looks for nodes that have not connected yet
_ANSWER = 600.0  # seconds a node has to say who it is; it may load CLIP and read its images first
_RAISED = frozenset({Reason.ERROR, Reason.DECLINED, Reason.TIMEOUT})  # it may pass
_OFFENCES = frozenset({Reason.WITHHELD, Reason.TRESPASS})  # by which others could come to harm
_BRIEFLY = 5.0  # seconds that nodes which kept silent before are waited for


@dataclass
class Roster:
    """Keep the sites that share the server's identity, and the verdicts on those that do not.

    Attributes
    ----------
    identity
        What every site must share.
    enrolled
        Returns the enrolled sites by node, as they are now; None admits any node (a simulation).
    domains
        Of which each site must have one; none where the run has no domains.
    images
        That the server's own division of the images gives a simulated site, by partition.
    """

    identity: Mapping[str, str]
    enrolled: Callable[[], Mapping[int, Enrolment]] | None = None
    domains: Sequence[str] = ()
    images: Mapping[int, int] = field(default_factory=dict)
    sites: dict[int, Site] = field(default_factory=dict)  # by partition
    refused: dict[int, Verdict] = field(default_factory=dict)  # by node
    silent: set[int] = field(default_factory=set)  # nodes that did not say who they are
    traffic: Traffic = field(default_factory=lambda: Traffic(0, 0))
    offences: list[Verdict] = field(default_factory=list)  # of enrolled sites that have not joined

    def wait(self, grid: Grid, least: int, seconds: float) -> None:
        """Let sites join until there are ``least``.

        Raises
        ------
        QuorumError
            Fewer have joined after ``seconds``; names those that were refused.
        """
        end = time.monotonic() + seconds
        self.refresh(grid, min(seconds, _ANSWER))
        while len(self.sites) < least:
            if time.monotonic() >= end or self._all_refused(grid, least):
                raise QuorumError(_explain(len(self.sites), least, self.refused.values()))
            time.sleep(_PAUSE)
            left = max(_PAUSE, end - time.monotonic())
            self.refresh(grid, min(left, _ANSWER), again=False)

    def refresh(
        self, grid: Grid, seconds: float, without: Collection[int] = (), *, again: bool = True
    ) -> None:
        """Forget the nodes that left; ask new ones who they are, and refused ones once more.

        A refused node may have been mended since. One that kept silent, or did not send its answer
        whole, is asked again too, but a round does not wait long for it. ``again=False`` asks
        refused nodes only if they raised. The enrolled sites ``without`` are not asked.
        """
        connected = set(grid.get_node_ids())
        self.sites = {p: site for p, site in self.sites.items() if site.node in connected}
        self.refused = {node: v for node, v in self.refused.items() if node in connected}
        raised = {n for n, verdict in self.refused.items() if _RAISED.intersection(verdict.reasons)}
        known = {site.node for site in self.sites.values()}
        known |= set() if again else self.refused.keys() - raised
        shared = {key: self.identity[key] for key in SHARED}
        query = RecordDict({CONFIG: ConfigRecord({**shared, "nonce": nonce()})})
        listed = self.enrolled() if self.enrolled and without else {}
        known |= {node for node, enrolment in listed.items() if enrolment.number in without}
        strangers, brief = connected - known, min(seconds, _BRIEFLY)
        for nodes, patience in (
            (strangers - self.silent, seconds),
            (strangers & self.silent, brief),
        ):
            self._ask(grid, dict.fromkeys(nodes, query), patience)

    def _ask(self, grid: Grid, contents: Mapping[int, RecordDict], seconds: float) -> None:
        """Ask nodes who they are; note who kept silent, for as long as they do."""
        if not contents:
            return
        answers, traffic = exchange(grid, contents, "query", seconds)
        self.traffic += traffic
        listed = self.enrolled() if self.enrolled else None
        for answer in sorted(answers, key=lambda a: a.node):
            self._admit(answer, listed)
        whole = {answer.node for answer in answers} - self._withheld()
        self.silent = (self.silent | contents.keys()) - whole

    def gather(
        self, grid: Grid, wanted: int, seconds: float, without: Collection[int] = ()
    ) -> None:
        """Wait until ``wanted`` sites are there, or go on with fewer when the time is over.

        Enrolled sites in quarantine, ``without``, are not asked who they are.
        """
        end = time.monotonic() + seconds
        self.refresh(grid, seconds, without)
        while len(self.sites) < wanted and time.monotonic() < end:
            time.sleep(_PAUSE)
            self.refresh(grid, max(_PAUSE, end - time.monotonic()), without, again=False)

    def _withheld(self) -> set[int]:
        return {n for n, verdict in self.refused.items() if Reason.WITHHELD in verdict.reasons}

    def sample(self, share: float, seed: str) -> list[Site]:
        """Return the sites to ask, by partition; equal seeds and sites give equal samples."""
        everyone = sorted(self.sites)
        size = min(len(everyone), max(1, round(share * len(everyone))))
        chosen = random.Random(seed).sample(everyone, size)  # noqa: S311 (not for secrets)
        return [self.sites[partition] for partition in sorted(chosen)]

    def _admit(self, answer: Answer, listed: Mapping[int, Enrolment] | None) -> None:
        name = listed[answer.node].name if listed and answer.node in listed else "?"
        with run_status.blaming(name):
            site, verdict = read_card(answer, self.identity, self.domains)
        declared = site.enrolled if site else 0
        if site and listed is not None:
            site, verdict = as_enrolled(site, listed)
        elif site:
            images = self.images.get(site.partition, 0)
            # a run divided among other sites than the server thinks is no lie
            site = with_agreed(site, images) if declared <= images else site
        if site and site.partition in self.sites:
            detail = f"partition {site.partition} has joined already"
            verdict = refuse(site.partition, answer.node, Reason.DUPLICATE, detail)
        if verdict and verdict.site is None and listed and answer.node in listed:
            verdict = replace(verdict, site=listed[answer.node].number)  # its key tells
        if verdict:
            if _OFFENCES.intersection(verdict.reasons):
                self.offences.append(verdict)
            if self.refused.get(answer.node) != verdict:
                name = listed[answer.node].name if listed and answer.node in listed else ""
                _log.warning(
                    "%s is not admitted: %s (%s)",
                    name or f"node {answer.node}", verdict.detail, ", ".join(verdict.reasons),
                    extra={"event": "not admitted", "node": answer.node, "site": verdict.site},
                )  # fmt: skip
            self.refused[answer.node] = verdict
        elif site:
            self.refused.pop(answer.node, None)
            self.sites[site.partition] = site
            if listed is not None and (told := remark(site, declared)):
                extra = {"event": "admitted", "node": site.node, "site": site.partition}
                _log.warning("%s %s", site.name, told, extra=extra)

    def _all_refused(self, grid: Grid, least: int) -> bool:
        """Tell whether waiting is vain: everyone expected has answered, too few were admitted.

        Of enrolled sites more may come, and one that does not fit must not end the run for them.
        """
        if self.enrolled:
            return False
        connected = set(grid.get_node_ids())
        return len(connected) >= least and len(self.sites) + len(self.refused) >= len(connected)


def _explain(joined: int, least: int, refused: Iterable[Verdict]) -> str:
    reasons = listed(replace(v, site=None) for v in refused)  # most are unknown, all are nodes
    told = f" Refused: {reasons}." if reasons else ""
    return (
        f"{joined} of {least} sites joined in time.{told} "
        "Start more sites, or lower server.min_sites."
    )
