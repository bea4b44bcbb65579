"""CLIP's byte-pair encoding without torch: the same ids as open_clip's ``SimpleTokenizer``.

A text is cleaned (ftfy, HTML entities, white space, case), cut into words by one pattern, and each
word, as UTF-8, is merged from single bytes by the list of merges, the best rank first (Sennrich et
al., arXiv 1508.07909). Merges, special tokens and cleaning come from the file that the export wrote
of the CLIP's own tokenizer; nothing of them is kept here.
"""

import html
import json
import string
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from fedprompt.errors import FedpromptError, GraphError

FORMAT = "clip-bpe 1"
Ids = npt.NDArray[np.int64]

_END = "</w>"  # of a word's last symbol
_WORDS = r"""|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""
_MOST = 1 << 16  # tokens of a text
_KEPT_WORDS = 1 << 16  # merged words that are remembered


class Tokenizer:
    """Turn texts into token ids.

    Parameters
    ----------
    merges
        Pairs of symbols with a space between, best first.
    special
        The start token, the end token and others, in the order of their ids.
    clean
        ``lower``, ``whitespace`` or ``canonicalize``.
    context_length
        Tokens of a text, start and end included.
    """

    def __init__(
        self, merges: Sequence[str], special: Sequence[str], clean: str, context_length: int
    ) -> None:
        ftfy, regex = _libraries()
        self._fix, self._clean = ftfy.fix_text, _CLEANINGS[clean]
        self._ranks = {tuple(pair.split(" ")): rank for rank, pair in enumerate(merges)}
        self._symbols = _byte_symbols()
        joined = [pair.replace(" ", "") for pair in merges]
        single = list(self._symbols.values())
        known = [*single, *(symbol + _END for symbol in single), *joined, *special]
        self.encoder = dict(zip(known, range(len(known)), strict=True))
        self.special = {token: self.encoder[token] for token in special}
        self._start, self.end = (self.encoder[token] for token in special[:2])
        self.context_length = context_length
        self._pattern = regex.compile(
            "|".join(map(regex.escape, special)) + _WORDS, regex.IGNORECASE
        )
        self._word = lru_cache(_KEPT_WORDS)(self._merge)

    @classmethod
    def parse(cls, data: bytes) -> "Tokenizer":
        """Return the tokenizer of a file that `export.targets.bundle` wrote.

        Raises
        ------
        GraphError
            The file is damaged or of another kind.
        """
        try:
            values = json.loads(data)
            if values.pop("format") != FORMAT:
                raise ValueError(f"expected format {FORMAT!r}")
            if values["context_length"] not in range(3, _MOST) or not all(values["special"]):
                raise ValueError("expected a number of tokens, and special tokens")
            return cls(**values)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise GraphError(f"the tokenizer file is damaged: {error}; export again") from None

    def __call__(self, texts: Sequence[str]) -> Ids:
        """Return ids [texts context_length], zeros behind the end; what is too long is cut."""
        ids_of_texts = np.zeros((len(texts), self.context_length), np.int64)
        for row, text in zip(ids_of_texts, texts, strict=True):
            ids = [self._start, *self.encode(text)][: self.context_length - 1]
            row[: len(ids) + 1] = [*ids, self.end]
        return ids_of_texts

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text alone."""
        cleaned = self._clean(html.unescape(html.unescape(self._fix(text))).strip())
        return [i for word in self._pattern.findall(cleaned) for i in self._word(word)]

    def _merge(self, word: str) -> tuple[int, ...]:
        """Return the ids of one word: merge the pair of the best rank until none has a rank."""
        if word in self.special:
            return (self.special[word],)
        parts = [self._symbols[byte] for byte in word.encode()]
        parts[-1] += _END
        while len(parts) > 1:
            best = min(pairwise(parts), key=lambda pair: self._ranks.get(pair, len(self._ranks)))
            if best not in self._ranks:
                break
            merged: list[str] = []
            for part in parts:
                if merged and (merged[-1], part) == best:
                    merged[-1] += part
                else:
                    merged.append(part)
            parts = merged
        return tuple(self.encoder[part] for part in parts)


def _byte_symbols() -> dict[int, str]:
    """Return a printable character for each byte, in the order of their ids (GPT-2)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(others)}


def _squeeze(text: str) -> str:
    return " ".join(text.split())


def _canonicalize(text: str) -> str:
    bare = text.replace("_", " ").translate(str.maketrans("", "", string.punctuation))
    return _squeeze(bare.lower())


_CLEANINGS: dict[str, Callable[[str], str]] = {
    "lower": lambda text: _squeeze(text).lower(),
    "whitespace": _squeeze,
    "canonicalize": _canonicalize,
}


def _libraries() -> tuple[Any, Any]:
    """Return ftfy and regex, which only an open vocabulary needs.

    Raises
    ------
    FedpromptError
        One of them is not installed.
    """
    try:
        import ftfy
        import regex
    except ImportError as error:
        raise FedpromptError(
            f"new class names need the package {error.name!r}, which is not installed; "
            "pip install 'fedprompt[edge,open-vocabulary]'"
        ) from None
    return ftfy, regex
