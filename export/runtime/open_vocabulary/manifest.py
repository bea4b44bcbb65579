"""What a bundle says of itself: its files by SHA-256, its versions, and which one is served."""

import json
import re
from dataclasses import asdict, dataclass
from typing import Any

from fedprompt.errors import GraphError
from fedprompt.identity import canonical_json

FORMAT = 1  # of the keys below; the newest this release reads
GRAPHS_AND_TOKENIZER = r"classifier\.onnx|text_encoder\.onnx|tokenizer\.json"
TENSORS = r"versions/[0-9a-f]{16}\.safetensors"  # a version's file; its hash is its name


@dataclass(frozen=True, kw_only=True)
class Version:
    """One state of a bundle: a prompt and the classes it serves.

    Attributes
    ----------
    number, parent
        From 1 on, and the version that this one took the place of; 0 = none.
    artefact_sha256
        Identity of the prompt.
    classes
        In the order of the class vectors.
    templates
        Texts with ``{}`` for the name; of several the mean vector counts.
    tensors
        File with ``class_vectors`` [classes joint], and with ``context`` [layers length width]
        where there is a text prompt.
    """

    number: int
    parent: int
    artefact_sha256: str
    classes: tuple[str, ...]
    templates: tuple[str, ...]
    tensors: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A bundle's ``bundle.json``.

    Attributes
    ----------
    method
        Of the prompt, a name of `fedprompt methods`.
    fixed
        Why no other prompt can be put in; empty where one can.
    backbone, tokenizer_sha256, preprocessing, white_level
        What an artefact must be for, as the artefact itself has them.
    files
        SHA-256 of every file, by its path below the folder.
    versions
        By number, all that there ever were.
    current
        The number of the one that is served.
    version
        Of the fedprompt that exported the bundle.
    """

    method: str
    fixed: str
    backbone: dict[str, Any]
    tokenizer_sha256: str
    preprocessing: dict[str, Any]
    files: dict[str, str]
    versions: tuple[Version, ...]
    current: int
    version: str
    white_level: int = 0

    @property
    def served(self) -> Version:
        """Return the current version."""
        return self.versions[self.current - 1]

    def to_json(self) -> bytes:
        """Return the file's text, inverse of `parse`."""
        return canonical_json({"format": FORMAT, **asdict(self)})

    @classmethod
    def parse(cls, data: bytes) -> "Manifest":
        """Read what `to_json` wrote.

        Raises
        ------
        GraphError
            The text is damaged, or of a later release.
        """
        try:
            values = json.loads(data)
            if values.pop("format") != FORMAT:
                raise ValueError(f"its format is not {FORMAT}; upgrade fedprompt")
            values["versions"] = tuple(_version(one) for one in values["versions"])
            manifest = cls(**values)
            _check(manifest)
            manifest.to_json()  # what cannot be written again (half a character) is damage
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise GraphError(
                f"the bundle's manifest cannot be read: {error}; export the bundle again"
            ) from None
        return manifest


def _version(values: dict[str, Any]) -> Version:
    lists = {key: tuple(values[key]) for key in ("classes", "templates")}
    return Version(**values | lists)


def _check(manifest: Manifest) -> None:
    """Refuse a manifest whose parts do not fit each other."""
    names = [*(name for v in manifest.versions for name in (*v.classes, *v.templates))]
    words = [manifest.method, manifest.fixed, manifest.tokenizer_sha256, manifest.version, *names]
    hashes = manifest.files.values()
    if not all(isinstance(text, str) for text in (*words, *hashes)):
        raise ValueError("a name or a hash is no text")
    strangers = [
        name
        for name in manifest.files
        if not re.fullmatch(f"{GRAPHS_AND_TOKENIZER}|{TENSORS}", name)
    ]
    if strangers:  # a path to elsewhere would be opened
        raise ValueError(f"{strangers[0][:200]!r} is no file of a bundle")
    numbers = [
        manifest.current,
        manifest.white_level,
        *(n for v in manifest.versions for n in (v.number, v.parent)),
    ]
    if not all(type(number) is int for number in numbers):
        raise ValueError("a version's number or the white level is none")
    if not isinstance(manifest.backbone["sha256"], str):
        raise ValueError("the backbone has no hash")
    for number, version in enumerate(manifest.versions, 1):
        if version.number != number or not 0 <= version.parent < number:
            raise ValueError(f"version {number} of {len(manifest.versions)} is out of order")
        if not re.fullmatch(TENSORS, version.tensors) or version.tensors not in manifest.files:
            raise ValueError(f"version {number} has no file of its own")
        if not version.classes or not version.templates:
            raise ValueError(f"version {number} has no classes")
    if not 1 <= manifest.current <= len(manifest.versions):
        raise ValueError(f"there is no version {manifest.current}")
