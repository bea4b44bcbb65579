"""Hold what a source has, before the list of classes is settled, and know the names of splits."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from fedprompt.data.image_set import Source, no_domains
from fedprompt.errors import DataError

Role = Literal["train", "val", "test"]
_ROLES: dict[str, Role] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validate", "validation"), "val"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
_DECORATION = frozenset(("data", "dataset", "image", "images", "img", "imgs", "set", "split"))
_WORDS = re.compile(r"[^\W\d_]+")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")  # trainA


def role_of(name: str) -> Role | None:
    """Return which split a name means, in any letter case: ``Training``, ``test_set``, ``val2017``.

    A name of more than one split word, or with a word that is no decoration, means none.
    """
    words = [word for word in _words(name) if word not in _DECORATION]
    joined = re.fullmatch(r"([a-z]+?)(?:set|data|images|imgs|split)", words[0]) if words else None
    word = joined[1] if joined and joined[1] in _ROLES else "".join(words[:1])
    return _ROLES.get(word) if len(words) == 1 else None


def split_word(name: str) -> tuple[Role, tuple[str, ...]] | None:
    """Return the split that one word of a name means, and the other words: ``seg_train``."""
    words = _words(name)
    roles = [_ROLES[word] for word in words if word in _ROLES]
    rest = tuple(word for word in words if word not in _ROLES)
    return (roles[0], rest) if len(roles) == 1 else None


def _words(name: str) -> list[str]:
    """Return the words of a name without digits and signs, in small letters."""
    return [word.casefold() for part in _WORDS.findall(name) for word in _CAMEL.split(part)]


def named_splits(names: Iterable[str], where: str) -> dict[Role, str]:
    """Return which name means which split; names that mean none are left out.

    Raises
    ------
    DataError
        Two names mean the same split, so that one would be passed over.
    """
    found: dict[Role, str] = {}
    for name in names:
        role = role_of(name)
        if role and found.setdefault(role, name) != name:
            raise DataError(
                f"{where}: {found[role]!r} and {name!r} both mean the {role} split; "
                "put them together, or remove one"
            )
    return found


@dataclass(frozen=True, eq=False)
class Split:
    """Pair a source's images with their labels, int64 [images], and their domains, if any."""

    labels: npt.NDArray[np.int64]
    source: Source
    domains: npt.NDArray[np.int64] = field(default_factory=no_domains)


@dataclass(frozen=True, eq=False)
class Splits:
    """Hold the splits of one source.

    Attributes
    ----------
    classes
        The labels' names as the source has them, in order.
    numbered
        Whether the source itself numbers its classes, so that a list of names can rename them.
    test
        None when the source has no test split.
    verified
        Whether the bytes were compared with a pinned hash, so that all images are readable.
    domain_names
        What the splits' domains are called, in order; empty when the source has no domains.
    notes
        What a person should know of how the source was understood, one line each.
    passed_over
        What was left out of a class, by its name: shown when nothing of it is left.
    """

    classes: tuple[str, ...]
    numbered: bool
    train: Split
    test: Split | None
    verified: bool = False
    domain_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    passed_over: Mapping[str, str] = field(default_factory=dict)
