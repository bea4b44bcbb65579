"""Keep a reply from a network from taking more memory or time than it may (F03, F04, F18).

A reply arrives as a tree of objects that its sender wrote: a message, records, arrays, chunks of
bytes, each named by its parent as often as the parent likes. Flower 1.41 unpacks what it is told,
so a chunk of a few megabytes named a million times would end the server. The size that a tree will
have is therefore added up first, from the objects' heads alone. Before that, objects are fetched
only as long as there is room for them, and those that were announced and never sent, which Flower
would ask for during two hours, are waited for until the deadline.

`flwr.superlink.grid.http_grid` is not public; it is the one place where replies are fetched and
unpacked, and the two names that do so are replaced here.
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from threading import Lock
from typing import Any

from flwr.superlink.grid import http_grid

Contents = Mapping[str, bytes]  # object id -> its head, a divider, its body
_DIVIDER = b"\x00"  # between an object's head and body
_LEVELS = ("Message", "RecordDict", "ArrayRecord", "Array")  # a parent above its children


@dataclass(frozen=True)
class Limit:
    """Hold the bytes one reply may have, and the monotonic time when it must be there."""

    size: int
    end: float


_limit: ContextVar[Limit | None] = ContextVar("limit", default=None)
_unpack: Callable[..., Any] = http_grid.inflate_object_from_contents  # type: ignore[attr-defined]
_fetch: Callable[..., dict[str, bytes]] = http_grid.pull_objects  # type: ignore[attr-defined]


@contextlib.contextmanager
def at_most(size: int, end: float) -> Iterator[None]:
    """Refuse, in this thread and block, replies of over ``size`` bytes, or not whole by ``end``.

    The first is a ValueError out of the grid's ``pull_messages``. The second is an error message of
    Flower's: the reply is not available.
    """
    token = _limit.set(Limit(size, end))
    try:
        yield
    finally:
        _limit.reset(token)


def unpacked_size(object_id: str, contents: Contents) -> int:
    """Return the bytes that an object unpacks to, what it names counted as often as it is named.

    Raises
    ------
    ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError
        The tree is damaged, or an object stands where its kind does not belong.
    """
    return _size(object_id, contents, 0, {})


def _size(object_id: str, contents: Contents, level: int, known: dict[str, int]) -> int:
    if object_id in known:
        return known[object_id]
    head, divider, body = contents[object_id].partition(_DIVIDER)
    kind, listed, _ = head.decode().split(" ")
    children = listed.split(",") if listed else []
    if not divider or (kind in _LEVELS and _LEVELS.index(kind) < level):
        raise ValueError(f"found {kind[:20]!r} where its parent may not have it")
    total = len(body)
    if kind in _LEVELS:
        named = _named(kind, body, children)
        named += set(children) - set(named)  # unpacked too, if only to be refused
        total += sum(_size(child, contents, _LEVELS.index(kind) + 1, known) for child in named)
    known[object_id] = total
    return total


def _named(kind: str, body: bytes, children: list[str]) -> list[str]:
    """Return the children of an object, as often as its body names them."""
    if kind == "Message":
        return children[:1]
    if kind == "Array":
        return [children[place] for place in json.loads(body)["arraychunk_ids"]]
    return [str(child) for child in json.loads(body).values()]


def _thrifty(object_id: str, object_contents: dict[str, bytes], **options: Any) -> Any:
    """Unpack as Flower does, unless the result would be larger than agreed."""
    limit = _limit.get()
    if limit and (size := unpacked_size(object_id, object_contents)) > limit.size:
        raise ValueError(f"the reply unpacks to {size:,} bytes, expected at most {limit.size:,}")
    return _unpack(object_id, object_contents, **options)


def _patient(
    object_ids: Sequence[str], pull_object_fn: Callable[[str], bytes], **options: Any
) -> dict[str, bytes]:
    """Fetch as Flower does, unless there is no more room or no more time."""
    limit, taken, lock = _limit.get(), 0, Lock()
    if limit is None:
        return _fetch(object_ids, pull_object_fn, **options)

    def pull(object_id: str) -> bytes:  # on two threads
        nonlocal taken
        content = pull_object_fn(object_id)
        with lock:
            taken += len(content)
        if taken > limit.size:
            raise ValueError(f"the reply has over {limit.size:,} bytes")
        return content

    return _fetch(object_ids, pull, max_time=max(0.0, limit.end - time.monotonic()), **options)


http_grid.pull_objects = _patient  # type: ignore[attr-defined]
http_grid.inflate_object_from_contents = _thrifty  # type: ignore[attr-defined]
