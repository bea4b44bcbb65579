"""What the text of a class is in front of and behind its name; no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedprompt.errors import ArtefactError

NAME_POSITIONS = ("end", "middle", "front")


@dataclass(frozen=True)
class Layout:
    """Say where the vectors of a text prompt stand in the text of a class.

    Attributes
    ----------
    length
        Vectors in the text of one class.
    frozen_words
        Words of the start that are not tuned; they stand behind the last vector (MaPLe, arXiv
        2210.03117; code).
    name_position
        Where the name stands (CoOp, arXiv 2109.01134): behind the vectors (end), behind length // 2
        of them (middle), or in front of all (front).
    class_specific
        Each class has vectors of its own.
    """

    length: int
    frozen_words: str = ""
    name_position: str = "end"
    class_specific: bool = False

    @property
    def leading(self) -> int:
        """Return how many vectors stand in front of the name."""
        return {"end": self.length, "middle": self.length // 2, "front": 0}[self.name_position]

    def spoken(self, template: str) -> str:
        """Return the template of such a prompt, "X X OF A {} REST" or "X {} X OF A REST".

        Each X is one token whose embedding the prompt replaces; REST stands behind the name in the
        method's own template.
        """
        vectors = ["X"] * self.length
        before, behind = vectors[: self.leading], vectors[self.leading :]
        (before if self.name_position == "end" else behind).extend(self.frozen_words.split())
        return " ".join([*before, "{}", *behind]) + template.partition("{}")[2]

    def describe(self) -> dict[str, Any]:
        """Return ``tokens``, and what is not as usual, for records and artefacts."""
        usual = Layout(self.length)
        others = ("frozen_words", "name_position", "class_specific")
        changed = {key: getattr(self, key) for key in others}
        return {"tokens": self.length} | {
            key: value for key, value in changed.items() if value != getattr(usual, key)
        }

    @classmethod
    def described(cls, metadata: Mapping[str, Any]) -> "Layout":
        """Return the layout that `describe` put into an artefact.

        Raises
        ------
        ArtefactError
            It is none.
        """
        words = metadata.get("frozen_words", "")
        position = metadata.get("name_position", "end")
        specific = metadata.get("class_specific", False)
        if (
            not isinstance(words, str)
            or set("{}") & set(words)
            or position not in NAME_POSITIONS
            or not isinstance(specific, bool)
        ):
            raise ArtefactError(
                f"the artefact's frozen_words are {str(words)[:60]!r}, its name_position "
                f"{str(position)[:60]!r}, its class_specific {str(specific)[:60]!r}; expected "
                f"words without braces, one of {', '.join(NAME_POSITIONS)}, and true or false"
            )
        return cls(metadata["tokens"], words, position, specific)


def class_text(template: str, name: str) -> str:
    """Return the text of one class."""
    return template.replace("{}", name.replace("_", " "))
