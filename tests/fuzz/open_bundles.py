"""Bundles of an open vocabulary: the manifest, and the tokenizer's file."""

import json

from export.runtime.open_vocabulary.manifest import Manifest
from export.runtime.open_vocabulary.tokenizer import Tokenizer

CAP = 1 << 16
_NAME = "versions/0123456789abcdef.safetensors"
_VERSION = {
    "number": 1, "parent": 0, "artefact_sha256": "a" * 64, "classes": ["cat", "dog"],
    "templates": ["X {}."], "tensors": _NAME,
}  # fmt: skip
_MANIFEST = {
    "format": 1, "method": "dip", "fixed": "", "backbone": {"sha256": "b" * 64},
    "tokenizer_sha256": "c" * 64, "preprocessing": {"size": 32}, "files": {_NAME: "d" * 64},
    "versions": [_VERSION], "current": 1, "version": "0.1.0",
}  # fmt: skip
_TOKENIZER = {
    "format": "clip-bpe 1", "merges": ["o w", "ow l</w>"], "clean": "lower",
    "special": ["<start_of_text>", "<end_of_text>"], "context_length": 16,
}  # fmt: skip


def feed(data: bytes) -> None:
    """Read one manifest, ask what it serves, and write it again."""
    manifest = Manifest.parse(data)
    if manifest.served.parent >= manifest.current:
        raise AssertionError("a version follows one that came later")
    manifest.to_json()


def seeds() -> list[bytes]:
    """Return a manifest of one version and of two."""
    two = [_VERSION, _VERSION | {"number": 2, "parent": 1}]
    return [json.dumps(m).encode() for m in (_MANIFEST, _MANIFEST | {"versions": two})]


def feed_tokenizer(data: bytes) -> None:
    """Read one tokenizer and let it read a text."""
    Tokenizer.parse(data).encode("An owl's <end_of_text> naïve\u2028日本 12")


def tokenizer_seeds() -> list[bytes]:
    """Return tokenizers of two merges, with either kind of cleaning."""
    return [json.dumps(_TOKENIZER | {"clean": c}).encode() for c in ("lower", "canonicalize")]
