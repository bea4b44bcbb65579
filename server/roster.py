"""Know the sites: who joined, with which identity, and who is asked this round.

Node ids are random under Flower's Ray engine, so each site says its partition when it joins;
sites are ordered and sampled by partition, which makes every engine ask the same ones.
"""

import json
import random
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from flwr.app import ConfigRecord, RecordDict
from flwr.serverapp import Grid

from fedprompt.errors import QuorumError
from fedprompt.wire import CONFIG, IDENTITY, SHARED
from server.exchange import Answer, Traffic, exchange
from server.gate import is_count
from server.replies import error_line
from server.verdict import Reason, Verdict, refuse

_PAUSE = 0.5  # seconds between two looks for nodes that have not connected yet
_BRIEFLY = 5.0  # seconds that nodes which kept silent before are waited for


@dataclass(frozen=True)
class Site:
    """Hold one site that joined."""

    partition: int
    node: int
    enrolled: int  # examples it declared; the cap of every count it reports


@dataclass
class Roster:
    """Keep the sites that share the server's identity, and the verdicts on those that do not."""

    identity: Mapping[str, str]
    sites: dict[int, Site] = field(default_factory=dict)  # by partition
    refused: dict[int, Verdict] = field(default_factory=dict)  # by node
    silent: set[int] = field(default_factory=set)  # nodes that did not say who they are
    traffic: Traffic = field(default_factory=lambda: Traffic(0, 0))

    def wait(self, grid: Grid, least: int, seconds: float) -> None:
        """Let sites join until there are ``least``.

        Raises
        ------
        QuorumError
            Fewer have joined after ``seconds``; names those that were refused.
        """
        end = time.monotonic() + seconds
        self.refresh(grid, seconds)
        while len(self.sites) < least:
            if time.monotonic() >= end or self._all_refused(grid, least):
                raise QuorumError(_explain(len(self.sites), least, self.refused.values()))
            time.sleep(_PAUSE)
            self.refresh(grid, max(_PAUSE, end - time.monotonic()))

    def refresh(self, grid: Grid, seconds: float) -> None:
        """Forget the nodes that left; ask new ones, and ones that raised, who they are.

        A node that kept silent is asked again, but a round does not wait long for it.
        """
        connected = set(grid.get_node_ids())
        self.sites = {p: site for p, site in self.sites.items() if site.node in connected}
        raised = {n for n, verdict in self.refused.items() if Reason.ERROR in verdict.reasons}
        known = {site.node for site in self.sites.values()} | (self.refused.keys() - raised)
        query = RecordDict({CONFIG: ConfigRecord({key: self.identity[key] for key in SHARED})})
        if strangers := connected - known:
            contents = dict.fromkeys(strangers, query)
            patience = min(seconds, _BRIEFLY) if strangers <= self.silent else seconds
            answers, traffic = exchange(grid, contents, "query", patience)
            self.traffic += traffic
            self.silent = strangers - {answer.node for answer in answers}
            for answer in sorted(answers, key=lambda a: a.node):
                self._admit(answer)

    def sample(self, share: float, seed: str) -> list[Site]:
        """Return the sites to ask, by partition; equal seeds and sites give equal samples."""
        everyone = sorted(self.sites)
        size = min(len(everyone), max(1, round(share * len(everyone))))
        chosen = random.Random(seed).sample(everyone, size)  # noqa: S311 (not for secrets)
        return [self.sites[partition] for partition in sorted(chosen)]

    def _admit(self, answer: Answer) -> None:
        site, verdict = _read(answer, self.identity)
        if site and site.partition in self.sites:
            detail = f"partition {site.partition} has joined already"
            verdict = refuse(site.partition, answer.node, Reason.DUPLICATE, detail)
        if verdict:
            self.refused[answer.node] = verdict
        elif site:
            self.refused.pop(answer.node, None)
            self.sites[site.partition] = site

    def _all_refused(self, grid: Grid, least: int) -> bool:
        """Tell whether waiting is vain: everyone expected has answered, too few were admitted."""
        connected = set(grid.get_node_ids())
        return len(connected) >= least and len(self.sites) + len(self.refused) >= len(connected)


def difference(ours: Mapping[str, str], theirs: Mapping[str, object]) -> str:
    """Return the first field in which an identity differs, both sides shown; empty if none does."""
    for key in SHARED:
        found = theirs.get(key)
        if found == ours[key]:
            continue
        if key == "classes":
            return _class_difference(ours[key], found)
        return f"{key} is {found!s:.80}, the server has {ours[key]}"
    return ""


def _read(answer: Answer, identity: Mapping[str, str]) -> tuple[Site | None, Verdict | None]:
    node, message = answer.node, answer.message
    if message.has_error():
        return None, refuse(None, node, Reason.ERROR, error_line(message))
    record = message.content.config_records.get(IDENTITY)
    if record is None:
        return None, refuse(None, node, Reason.MALFORMED, "the reply brings no identity")
    partition, enrolled = record.get("partition"), record.get("num-examples")
    if not is_count(partition) or not is_count(enrolled):
        detail = f"partition {partition!r}, num-examples {enrolled!r}: expected whole numbers"
        return None, refuse(None, node, Reason.BAD_COUNT, detail)
    if found := difference(identity, record):
        return None, refuse(partition, node, Reason.IDENTITY, found)
    return Site(partition, node, enrolled), None


def _class_difference(ours: str, theirs: object) -> str:
    """Return the first class that differs, or the two lengths (F13)."""
    expected = json.loads(ours)
    try:
        found = json.loads(str(theirs))
    except ValueError:
        found = None
    if not isinstance(found, list):
        return f"classes are not a JSON list, the server has {len(expected)}"
    for i, (here, there) in enumerate(zip(expected, found, strict=False)):
        if here != there:
            return f"class {i} is {there!r:.80}, the server has {here!r}"
    return f"{len(found)} classes, the server has {len(expected)}"


def _explain(joined: int, least: int, refused: Iterable[Verdict]) -> str:
    reasons = "; ".join(f"node {v.node}: {v.reasons[0]}, {v.detail}" for v in refused)
    told = f" Refused: {reasons}." if reasons else ""
    return (
        f"{joined} of {least} sites joined in time.{told} "
        "Start more sites, or lower server.min_sites."
    )
