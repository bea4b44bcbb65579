"""What a classifier file says about itself, under ``fedprompt.*`` in its metadata."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from export.parity.compare import Probes
from fedprompt.data.decode import MAX_WHITE
from fedprompt.data.preprocess import Preprocessing
from fedprompt.errors import DataError, GraphError
from fedprompt.identity import canonical_json, sha256_bytes

PREFIX = "fedprompt."
FORMAT = 1  # of the keys below; the newest this release reads
_LOCAL = "local-dir:"


@dataclass(frozen=True, kw_only=True)
class GraphMetadata:
    """Everything a runtime must know besides the graph.

    Attributes
    ----------
    classes
        In the order of the logits.
    preprocessing
        How a decoded image becomes the uint8 input.
    backbone
        ``name``, ``pretrained`` and ``sha256`` of the CLIP: see `without_path`.
    tokenizer_sha256, artefact_sha256
        Of what was folded in.
    folded
        Shapes of the prompt's constants: ``class_vectors``, ``visual_prompts`` and so on.
    flavour
        ``ort`` or ``portable``.
    opset
        Of the standard operators.
    logit_scale, logit_bias
        Already inside the graph; a record.
    version
        Of the fedprompt that wrote the file.
    parity
        Agreement with torch on real images as measured at export.
    white_level
        Of 16-bit grey, as the images of the tuning were decoded; 0 is the highest of the type.
    probes
        Seeded images' answers, for `fedprompt verify`.
    ladder
        What each step from torch to this file cost and gained, as JSON
        (`export.parity.check`); empty in files of older releases.
    """

    classes: tuple[str, ...]
    preprocessing: Preprocessing
    backbone: dict[str, str]
    tokenizer_sha256: str
    artefact_sha256: str
    folded: dict[str, Any]
    flavour: str
    opset: int
    logit_scale: float
    logit_bias: float
    version: str
    white_level: int = 0
    parity: dict[str, Any] | None = None
    probes: Probes | None = None
    ladder: tuple[dict[str, Any], ...] = ()

    @property
    def precision(self) -> str:
        """Return ``fp32``, ``fp16``, ``bf16`` or ``int8``, as the parity was measured for."""
        return str((self.parity or {}).get("precision", "fp32"))

    def to_properties(self) -> dict[str, str]:
        """Return ONNX's ``metadata_props``: one JSON text a key."""
        values = {
            "format": FORMAT,
            "classes": list(self.classes),
            "classes_sha256": _hash(self.classes),
            "preprocessing": self.preprocessing.to_dict(),
            "backbone": self.backbone,
            "tokenizer_sha256": self.tokenizer_sha256,
            "artefact_sha256": self.artefact_sha256,
            "folded": self.folded,
            "flavour": self.flavour,
            "opset": self.opset,
            "logit_scale": self.logit_scale,
            "logit_bias": self.logit_bias,
            "version": self.version,
            "parity": self.parity,
            "probes": None if self.probes is None else self.probes.to_dict(),
            "ladder": list(self.ladder),
        }
        if self.white_level:  # came later; files without it are decoded as before
            values["white_level"] = self.white_level
        return {PREFIX + key: canonical_json(value).decode() for key, value in values.items()}

    @classmethod
    def from_properties(cls, properties: Mapping[str, str]) -> "GraphMetadata":
        """Read what `to_properties` wrote.

        Raises
        ------
        GraphError
            The file was not written by fedprompt, by a newer one, or its metadata is damaged.
        """
        if f"{PREFIX}format" not in properties:
            raise GraphError(
                "the file has no fedprompt metadata, so its classes and preprocessing are unknown; "
                "give a classifier.onnx written by `fedprompt export`"
            )
        values = {
            key.removeprefix(PREFIX): _read(key, text)
            for key, text in properties.items()
            if key.startswith(PREFIX)
        }
        if values.pop("format") != FORMAT:
            raise GraphError(
                f"the metadata has format {properties[f'{PREFIX}format'][:20]}, this release reads "
                f"{FORMAT}; upgrade fedprompt"
            )
        return _checked(cls, values)


def without_path(backbone: str) -> str:
    """Return a backbone's name as strangers may read it: a local folder without its path.

    An artefact keeps the path, by which its owner loads the CLIP again; what is exported is
    complete and goes elsewhere.
    """
    if not backbone.startswith(_LOCAL):
        return backbone
    return _LOCAL + PurePath(backbone.removeprefix(_LOCAL)).name


def _hash(classes: Sequence[str]) -> str:
    return sha256_bytes(canonical_json(list(classes)))


def _read(key: str, text: str) -> Any:
    try:
        value = json.loads(text)
        canonical_json(value)  # what cannot be written again (1e999, half a character) is damage
        return value
    except (ValueError, RecursionError) as error:
        raise GraphError(f"metadata {key} is not JSON: {error}; the file is damaged") from None


_KINDS: dict[str, type | tuple[type, ...]] = {
    "classes": list,
    "classes_sha256": str,
    "preprocessing": dict,
    "backbone": dict,
    "tokenizer_sha256": str,
    "artefact_sha256": str,
    "folded": dict,
    "flavour": str,
    "opset": int,
    "logit_scale": (int, float),
    "logit_bias": (int, float),
    "version": str,
    "white_level": int,
    "parity": (dict, type(None)),
    "probes": (dict, type(None)),
    "ladder": list,
}


def _checked(kind: type[GraphMetadata], values: dict[str, Any]) -> GraphMetadata:
    values.setdefault("ladder", [])  # came later
    values.setdefault("white_level", 0)
    for key, expected in _KINDS.items():
        if key not in values or not isinstance(values[key], expected):
            raise GraphError(f"metadata {PREFIX}{key} is missing or damaged; export again")
    known = {key: values[key] for key in _KINDS}  # keys of later releases are left alone
    classes = known["classes"]
    if not classes or not all(isinstance(name, str) for name in classes):
        raise GraphError(f"metadata {PREFIX}classes is no list of names; export again")
    if known.pop("classes_sha256") != _hash(classes):
        raise GraphError(
            f"metadata {PREFIX}classes does not match its hash; names or their order were changed"
        )
    try:
        known["preprocessing"] = Preprocessing.from_dict(known["preprocessing"])
    except (DataError, TypeError) as error:
        raise GraphError(f"metadata {PREFIX}preprocessing: {error}; export again") from None
    if not 0 <= known["white_level"] <= MAX_WHITE:
        raise GraphError(
            f"metadata {PREFIX}white_level is {known['white_level']}; expected 0 to {MAX_WHITE}"
        )
    if not all(isinstance(rung, dict) for rung in known["ladder"]):
        raise GraphError(f"metadata {PREFIX}ladder is no list of steps; export again")
    _check_records(known["backbone"], known["parity"] or {})
    known["probes"] = None if known["probes"] is None else Probes.from_dict(known["probes"])
    return kind(**known | {"classes": tuple(classes), "ladder": tuple(known["ladder"])})


def _check_records(backbone: dict[str, Any], parity: dict[str, Any]) -> None:
    """Refuse records whose parts are missing or of another kind."""
    texts = {"name", "pretrained", "sha256"} <= backbone.keys()
    if not texts or not all(isinstance(value, str) for value in backbone.values()):
        raise GraphError(f"metadata {PREFIX}backbone lacks a name or a hash; export again")
    if (measured := parity.get("images")) is None:
        return
    numbers = (
        [measured.get(key) for key in ("images", "largest")] if isinstance(measured, dict) else []
    )
    if not numbers or not all(isinstance(number, int | float) for number in numbers):
        raise GraphError(f"metadata {PREFIX}parity holds no measurement; export again")
