"""Group emoji into kinds that a text tower can read: the classes of the emoji source.

An emoji is drawn once by each vendor, so it is no class; its *kind* is: one or more of Unicode's
subgroups under a name of ours. Subgroups that are no picture of a kind (``place-other`` is a tent,
a fountain and a night sky) are left out; so are national flags and families, which Microsoft does
not give away, and hearts and shapes, of which some differ in colour alone.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass

from fedprompt.errors import DataError

KINDS = {  # class name -> Unicode's subgroups, as emoji-datasource names them
    "happy face": ("face-smiling", "face-affection", "face-tongue"),
    "unhappy face": ("face-concerned", "face-unwell"),
    "hand": (
        *("hand-fingers-open", "hand-fingers-partial", "hand-fingers-closed"),
        *("hand-single-finger", "hand-prop", "hands"),
    ),
    "person": ("person", "person-gesture", "person-role", "person-activity", "person-resting"),
    "athlete": ("person-sport",),
    "mammal": ("animal-mammal",),
    "bird": ("animal-bird",),
    "sea animal": ("animal-marine",),
    "insect or reptile": ("animal-bug", "animal-reptile", "animal-amphibian"),
    "plant": ("plant-flower", "plant-other"),
    "fruit or vegetable": ("food-fruit", "food-vegetable"),
    "meal": ("food-prepared", "food-asian"),
    "dessert": ("food-sweet",),
    "drink": ("drink",),
    "building": ("place-building", "place-religious"),
    "land vehicle": ("transport-ground",),
    "ship or aircraft": ("transport-water", "transport-air"),
    "clock": ("time",),
    "sky or weather": ("sky & weather",),
    "celebration": ("event",),
    "sports equipment": ("sport",),
    "game": ("game",),
    "clothing": ("clothing",),
    "music": ("music", "musical-instrument"),
    "electronic device": ("phone", "computer"),
    "camera or lamp": ("light & video",),
    "book or paper": ("book-paper",),
    "mail": ("mail",),
    "office supplies": ("office", "writing"),
    "tool": ("tool",),
    "warning or information sign": ("warning", "transport-sign"),
    "arrow": ("arrow",),
    "religious symbol": ("religion",),
    "zodiac sign": ("zodiac",),
    "media player button": ("av-symbol",),
    "button with letters": ("alphanum",),
    "button with a number": ("keycap",),
}
_KIND_OF = {subgroup: kind for kind, subgroups in KINDS.items() for subgroup in subgroups}


@dataclass(frozen=True, kw_only=True)
class Emoji:
    """Describe one emoji, without skin tones.

    Attributes
    ----------
    codes
        Its code points, such as ``2600-fe0f``: lower-case hexadecimal with hyphens between.
    name
        What people call it, such as ``sunny``.
    kind
        A key of `KINDS`.
    """

    codes: str
    name: str
    kind: str


def read_catalogue(content: bytes) -> list[Emoji]:
    """Return the emoji of some kind that emoji-datasource's ``emoji.json`` lists, in its order.

    Variants of skin tone are no entries of their own there.

    Raises
    ------
    DataError
        The file is no list of emoji.
    """
    try:
        return list(_of_a_kind(json.loads(content)))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DataError(f"emoji.json is no list of emoji: {error!r}") from error


def _of_a_kind(entries: list[dict[str, str]]) -> Iterator[Emoji]:
    for entry in sorted(entries, key=lambda entry: entry["unified"]):
        kind = _KIND_OF.get(entry["subcategory"])
        if kind:
            yield Emoji(codes=entry["unified"].lower(), name=entry["short_name"], kind=kind)
