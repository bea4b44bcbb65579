"""WordNet's nouns, their place in the hierarchy, and the texts that name them.

The files are Debian's package ``wordnet-base`` (WordNet 3.0), fetched by apt-get. Its byte offsets
are the numbers in ImageNet's class ids, which timm lists in the order of the classifier's rows.
"""

import re
import subprocess
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from pathlib import Path

from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES

PACKAGE = "wordnet-base"
FOLDER = "wordnet/usr/share/wordnet"  # in the work folder
LEMMAS = 3
"""How many names of a noun are learned, in WordNet's order; the later ones are mostly Latin."""
SHORT = 12
"""A word that WordNet's tagged corpus never met is learned only if it is this short."""
_LATIN = re.compile(r"[A-Z][a-z]+ [a-z]+")


@dataclass(frozen=True, kw_only=True)
class Noun:
    """A noun of WordNet: its id, its synonyms, its definition and the ids one step above it."""

    wnid: str
    lemmas: tuple[str, ...]
    definition: str
    parents: tuple[str, ...]


def fetch(work: Path) -> None:
    """Unpack Debian's package in ``work/wordnet``, without root; does nothing the second time.

    Raises
    ------
    subprocess.CalledProcessError
        apt-get knows no such package, or cannot reach its archive.
    """
    if (work / FOLDER / "data.noun").exists():
        return
    folder = work / "wordnet"
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["apt-get", "download", PACKAGE], cwd=folder, check=True)
    (package,) = folder.glob(f"{PACKAGE}_*.deb")
    subprocess.run(["dpkg", "-x", package.name, "."], cwd=folder, check=True)


def imagenet_ids() -> list[str]:
    """List the ids of ImageNet's 1,000 classes in the order of the classifier's rows."""
    return (files("timm") / "data/_info/imagenet_synsets.txt").read_text().split()


@cache
def pictured() -> dict[str, str]:
    """Map the ids of the 21,844 nouns that ImageNet has pictures of to their synonyms."""
    lines = (files("timm") / "data/_info/imagenet_synset_to_lemma.txt").read_text().splitlines()
    return dict(line.split("\t", 1) for line in lines if line)


@cache
def imagenet_names() -> list[tuple[str, ...]]:
    """List each ImageNet class's names: the synset's first one, then open_clip's."""
    pairs = zip(imagenet_ids(), IMAGENET_CLASSNAMES, strict=True)
    lemmas = pictured()
    return [tuple(dict.fromkeys((lemmas[wnid].split(", ")[0], name))) for wnid, name in pairs]


class WordNet:
    """The noun files of WordNet 3.0.

    Parameters
    ----------
    folder
        What holds ``data.noun``, ``index.noun`` and ``cntlist.rev``.
    """

    def __init__(self, folder: Path) -> None:
        self.nouns = {noun.wnid: noun for noun in _read_nouns(folder / "data.noun")}
        self._sense = _read_senses(folder / "index.noun")
        self._met = _read_tagged(folder / "cntlist.rev")

    def ancestors(self, wnid: str) -> list[str]:
        """List everything above a noun, nearest first."""
        found: dict[str, None] = {}
        level = [wnid]
        while level:
            level = [p for w in level for p in self.nouns[w].parents if p not in found]
            found |= dict.fromkeys(level)
        return list(found)

    def is_main_sense(self, lemma: str, wnid: str) -> bool:
        """Tell whether a word means this noun before any other."""
        return self._sense.get(lemma.lower(), wnid) == wnid

    def is_common(self, noun: Noun) -> bool:
        """Tell whether one of a noun's first words is lower-case, means it, and is in use."""
        words = [w for w in noun.lemmas[:2] if w.islower() and self.is_main_sense(w, noun.wnid)]
        return any(w in self._met for w in words) or (bool(words) and len(words[0]) <= SHORT)


class Vocabulary:
    """The nouns that the text tower learns, and their names.

    Attributes
    ----------
    nouns
        ImageNet's classes, all that stand above them, and the common nouns that have pictures.
    position
        The place of each id in ``nouns``.
    """

    def __init__(self, wordnet: WordNet) -> None:
        classes = imagenet_ids()
        above = {a for wnid in classes for a in wordnet.ancestors(wnid)}
        needed = above | set(classes)
        self.nouns = [
            noun
            for noun in wordnet.nouns.values()
            if noun.wnid in needed or (noun.wnid in pictured() and wordnet.is_common(noun))
        ]
        self.position = {noun.wnid: i for i, noun in enumerate(self.nouns)}
        self.rows = [self.position[wnid] for wnid in classes]
        self.ancestors = [wordnet.ancestors(noun.wnid) for noun in self.nouns]
        self._wordnet = wordnet

    @cached_property
    def names(self) -> list[tuple[str, int]]:
        """List names with the position of what they name; the main name of a noun comes first."""
        pairs: dict[tuple[str, int], None] = {}
        for row, names in zip(self.rows, imagenet_names(), strict=True):
            pairs |= {(name, row): None for name in names}
        for position, noun in enumerate(self.nouns):
            plain = [w for w in noun.lemmas if w.isascii() and not _LATIN.fullmatch(w)]
            for number, name in enumerate((plain or list(noun.lemmas))[:LEMMAS]):
                if number == 0 or self._wordnet.is_main_sense(name, noun.wnid):
                    pairs[name, position] = None
        return list(pairs)


def _read_nouns(path: Path) -> list[Noun]:
    """Read ``data.noun``; its format is wndb(5WN)."""
    nouns = []
    for line in path.read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("  "):  # the licence
            continue
        fields, _, gloss = line.partition(" | ")
        values = fields.split()
        words = int(values[3], 16)
        pointers = values[5 + 2 * words :]
        nouns.append(
            Noun(
                wnid=f"n{values[0]}",
                lemmas=tuple(w.replace("_", " ") for w in values[4 : 4 + 2 * words : 2]),
                definition=gloss.strip().split('; "')[0],
                parents=tuple(
                    f"n{target}"
                    for symbol, target in zip(pointers[::4], pointers[1::4], strict=False)
                    if symbol in ("@", "@i")
                ),
            )
        )
    return nouns


def _read_senses(path: Path) -> dict[str, str]:
    """Map each word to its most frequent noun sense."""
    senses = {}
    for line in path.read_text(encoding="ascii").splitlines():
        if not line.startswith("  "):
            values = line.split()
            senses[values[0].replace("_", " ")] = f"n{values[-int(values[2])]}"
    return senses


def _read_tagged(path: Path) -> set[str]:
    """List the nouns that occur in WordNet's tagged corpus."""
    keys = [line.split()[0] for line in path.read_text(encoding="ascii").splitlines()]
    return {key.split("%")[0].replace("_", " ") for key in keys if "%1:" in key}
