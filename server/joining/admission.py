"""Judge who may join: the identity that a site shows against the server's, and its enrolment.

Pure: an answer goes in, a site or a verdict comes out (F06, F10, F12-F14).
"""

import json
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from fedprompt.wire import IDENTITY, SHARED
from server.gate.judge import is_count
from server.gate.limits import MOST_IMAGES, MOST_MEDIANS
from server.gate.replies import error_line, fault
from server.gate.verdict import Reason, Verdict, refuse
from server.joining.enrolment import Enrolment, objection
from server.rounds.exchange import Answer


@dataclass(frozen=True)
class Site:
    """Hold one site that joined."""

    partition: int
    node: int
    enrolled: int  # examples it declared, no more than agreed; the cap of every count it reports
    name: str = ""  # as enrolled
    domain: str = ""  # what its images are of, where the run has domains
    agreed: bool = field(default=False, compare=False)  # `enrolled` is more than its own word


def difference(ours: Mapping[str, str], theirs: Mapping[str, object]) -> str:
    """Return the first field in which an identity differs, both sides shown; empty if none does."""
    for key in SHARED:
        found = theirs.get(key)
        if found == ours[key]:
            continue
        if key == "classes":
            return _class_difference(ours[key], found)
        if key == "method" and (told := _method_difference(ours[key], found)):
            return told
        return f"{key} is {found!s:.80}, the server has {ours[key]}"
    return ""


def read_card(
    answer: Answer, identity: Mapping[str, str], domains: Sequence[str]
) -> tuple[Site | None, Verdict | None]:
    """Return the site that an answer to the question who it is speaks for, or why it may not join.

    ``identity`` is what every site must share, ``domains`` those of which it must have one, if any.
    """
    node, message = answer.node, answer.message
    if message.has_error():
        return None, refuse(None, node, fault(message), error_line(message))
    record = message.content.config_records.get(IDENTITY)
    if record is None:
        return None, refuse(None, node, Reason.MALFORMED, "the reply brings no identity")
    partition, enrolled = record.get("partition"), record.get("num-examples")
    if not is_count(partition) or not is_count(enrolled):
        detail = f"partition {partition!r}, num-examples {enrolled!r}: expected whole numbers"
        return None, refuse(None, node, Reason.BAD_COUNT, detail)
    if found := difference(identity, record):
        return None, refuse(partition, node, Reason.IDENTITY, found)
    domain = record.get("domain", "") if domains else ""
    if domains and domain not in domains:
        detail = f"domain is {domain!s:.80}, the server has {', '.join(domains)}"
        return None, refuse(partition, node, Reason.IDENTITY, detail)
    return Site(partition, node, min(enrolled, MOST_IMAGES), domain=str(domain)), None


def as_enrolled(site: Site, listed: Mapping[int, Enrolment]) -> tuple[Site | None, Verdict | None]:
    """Return the site under its name and agreed size, or why its key does not fit (F06, F10)."""
    if found := objection(listed, site.node, site.partition):
        return None, refuse(site.partition, site.node, Reason.IDENTITY, found)
    enrolment = listed[site.node]
    return replace(with_agreed(site, enrolment.images), name=enrolment.name), None


def with_agreed(site: Site, images: int) -> Site:
    """Return a site that may speak for so many images and no more; 0 = no number was agreed."""
    return replace(site, enrolled=min(site.enrolled, images), agreed=True) if images else site


def remark(site: Site, declared: int) -> str:
    """Return what the operator should know of an admitted site's number of images; often nothing.

    ``declared`` is what the site said.
    """
    if declared > site.enrolled:
        return (
            f"says that it has {declared} images, at most {site.enrolled} are counted: a reply "
            "that speaks for more is a strike"
        )
    if not site.agreed:
        return (
            f"has no agreed number of images: its own word, {declared}, weighs {MOST_MEDIANS} "
            "times the sites' median at most. To agree on one, enrol it with --images"
        )
    return ""


def _class_difference(ours: str, theirs: object) -> str:
    """Return the first class that differs, or the two lengths (F13)."""
    expected = json.loads(ours)
    try:
        found = json.loads(str(theirs))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list):
        return f"classes are not a JSON list, the server has {len(expected)}"
    for i, (here, there) in enumerate(zip(expected, found, strict=False)):
        if here != there:
            return f"class {i} is {reprlib.repr(there)}, the server has {here!r}"
    return f"{len(found)} classes, the server has {len(expected)}"


def _method_difference(ours: str, theirs: object) -> str:
    """Return the first setting in which two methods differ; empty if they are no JSON objects."""
    expected, found = _object(ours), _object(theirs)
    if not expected or not found:
        return ""
    differing = [k for k in sorted({*expected, *found}) if expected.get(k) != found.get(k)]
    if not differing:  # the same, spelt otherwise
        return ""
    key = differing[0]
    told = f"method: {key} is {reprlib.repr(found.get(key))}, the server has {expected.get(key)!r}"
    if key == "start" and expected.get("method") == "spt":
        told += (
            "; in form lowrank the start is frozen, so every site needs the images of the server's "
            "prompt.public (a deployed site names them in its site.toml), and the same prompt.start"
        )
    return told


def _object(text: object) -> dict[str, object]:
    try:
        found = json.loads(str(text))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
