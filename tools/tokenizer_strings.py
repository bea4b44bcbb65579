"""Compare the edge's tokenizer with open_clip's: ``python -m tools.tokenizer_strings 10000``.

Strings of a seed: ImageNet's class names in CLIP's templates, HTML entities, emoji, text that was
decoded wrongly, any other characters, odd white space, special tokens, and texts that are too long.
"""

import html.entities
import random
import sys
from collections.abc import Callable

import open_clip
from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES, OPENAI_IMAGENET_TEMPLATES

from export.runtime.open_vocabulary.tokenizer import Tokenizer
from export.targets.bundle import tokenizer_file
from fedprompt.backbone.clip import FrozenClip
from fedprompt.data.preprocess import Preprocessing

_ENTITIES = sorted(html.entities.html5)
_SPACES = " \t\n\r\x0b\x0c\x1c\x1d\x85\xa0\u1680\u2003\u2028\u202f\u3000\u200b\ufeff"
_RANGES = ((0x20, 0x7F), (0x80, 0x250), (0x370, 0x600), (0x900, 0xE80), (0x3040, 0x9FFF),
           (0xAC00, 0xD7A4), (0x1D400, 0x1D800), (0x1F300, 0x1FAFF), (0x21, 0x11FFFF))  # fmt: skip
_SPECIAL = ("<start_of_text>", "<end_of_text>", "<END_OF_TEXT>", "'s", "'LL", "\u017f", "!!", "_")


def strings(count: int, seed: int = 0) -> list[str]:
    """Return some strings of every kind, the same for the same seed."""
    rng = random.Random(seed)  # noqa: S311 - a sample, not a secret
    kinds: list[Callable[[random.Random], str]] = [
        _real, _real, _characters, _entity, _misread, _spaced, _special, _long
    ]  # fmt: skip
    return [kinds[index % len(kinds)](rng) for index in range(count)]


def different(clip: FrozenClip, texts: list[str]) -> list[str]:
    """Return the strings whose ids differ from open_clip's."""
    own = Tokenizer.parse(tokenizer_file(clip))
    same = (own(texts) == clip.tokenizer(texts).numpy()).all(axis=1)
    return [text for text, equal in zip(texts, same, strict=True) if not equal]


def _real(rng: random.Random) -> str:
    name: str = OPENAI_IMAGENET_TEMPLATES[rng.randrange(80)](rng.choice(IMAGENET_CLASSNAMES))
    return rng.choice([name, name.upper(), name.title(), name.replace(" ", "_")])


def _characters(rng: random.Random) -> str:
    low, high = rng.choice(_RANGES)
    points = (rng.randrange(low, min(high, 0x110000)) for _ in range(rng.randrange(24)))
    return "".join(chr(point) for point in points)


def _entity(rng: random.Random) -> str:
    name = rng.choice(_ENTITIES)
    return rng.choice(["&{}", "x &{} y", "&amp;{}", "&amp;amp;{} <b>", "&#{};"]).format(
        rng.choice([name, name.strip(";"), str(rng.randrange(0x3000))])
    )


def _misread(rng: random.Random) -> str:
    encoding = rng.choice(["latin-1", "cp1252", "macroman"])
    return _characters(rng).encode("utf-8", "replace").decode(encoding, "replace")


def _spaced(rng: random.Random) -> str:
    return "".join(rng.choice(_SPACES) + _characters(rng)[:4] for _ in range(rng.randrange(8)))


def _special(rng: random.Random) -> str:
    return rng.choice(["", " "]).join(
        rng.choice([*_SPECIAL, rng.choice(IMAGENET_CLASSNAMES)]) for _ in range(5)
    )


def _long(rng: random.Random) -> str:
    return " ".join(rng.choice(IMAGENET_CLASSNAMES) for _ in range(rng.randrange(20, 60)))


def main() -> None:
    """Compare as many strings as asked for and say which differ."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    model = open_clip.CLIP(8, {"width": 8, "head_width": 8, "layers": 1}, {"width": 8, "heads": 1})
    clip = FrozenClip(model, open_clip.get_tokenizer("ViT-B-32"), Preprocessing(size=224))
    found = different(clip, strings(count))
    print(f"{count - len(found)} of {count} strings have open_clip's ids")
    for text in found[:20]:
        print(repr(text))
    raise SystemExit(1 if found else 0)


if __name__ == "__main__":
    main()
