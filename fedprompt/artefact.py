"""The prompt artefact: PEFT's two files, with every hash inside and checked.

``adapter_model.safetensors`` holds what was trained and where it started, so that
``ctx = ctx.start + ctx.A @ ctx.B`` needs nothing else. ``adapter_config.json`` (canonical JSON)
says for which CLIP, classes and template it was trained, and carries the hash of the weights.

Two files cannot be replaced in one step, so saving announces first: the new configuration is
written beside the old one, then the weights are replaced, then the configuration. Whatever moment
a crash chooses, one of the two configurations fits the weights, and loading takes that one.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedprompt import tensor_file
from fedprompt.errors import ArtefactError, StorageError
from fedprompt.identity import canonical_json, sha256_bytes
from fedprompt.storage import write_atomic

FOLDER = "artefact"  # its name in a run's folder; see `fedprompt.run_folder`
WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
ANNOUNCED = "adapter_config.next.json"
VERSION = "0.1.0"  # of the layout below; the newest this release reads

REQUIRED: dict[str, type | tuple[type, ...]] = {
    "method": str,
    "host": str,
    "form": str,
    "rank": int,
    "tokens": int,
    "trained": list,
    "dtype": str,
    "backbone": dict,
    "tokenizer_sha256": str,
    "classes": list,
    "template": str,
    "preprocessing": dict,
    "round": int,
    "seed": int,
}
_PICKLED = (".pt", ".pth", ".npz", ".bin", ".pkl")
_MAX_CONFIG = 1 << 26  # bytes; a million class names fit
_MAX_WEIGHTS = 1 << 30  # bytes; deep prompts of a large CLIP take a few megabytes


@dataclass(frozen=True)
class Artefact:
    """Hold a prompt and what it belongs to.

    Parameters
    ----------
    tensors
        The trained arrays (``ctx.A``, ``ctx.B``) and their start (``ctx.start``).
    metadata
        The keys of ``REQUIRED`` and any others; hashes and version are added here.
    """

    tensors: tensor_file.Tensors
    metadata: dict[str, Any]

    @property
    def sha256(self) -> str:
        """Return the identity of the prompt: the hash of its configuration, weights' included."""
        return sha256_bytes(canonical_json(self._sealed(tensor_file.dump(self.tensors))))

    @property
    def trained(self) -> tensor_file.Tensors:
        """Return the arrays that travelled: neither their start nor a frozen basis."""
        names = self.metadata["trained"]
        return {name: array for name, array in self.tensors.items() if name in names}

    def save(self, folder: Path) -> None:
        """Write both files; a crash leaves the old artefact or the new one, never a mixture.

        Raises
        ------
        ArtefactError
            A key is missing, or a tensor holds NaN.
        StorageError
            The folder cannot be written.
        """
        weights = tensor_file.dump(self.tensors)
        sealed = self._sealed(weights)
        _check(sealed, "the artefact to save")
        config = canonical_json(sealed)
        write_atomic(folder / ANNOUNCED, config)
        write_atomic(folder / WEIGHTS, weights)
        write_atomic(folder / CONFIG, config)
        try:
            (folder / ANNOUNCED).unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"{folder / ANNOUNCED}: {error.strerror}; remove it") from error

    @classmethod
    def load(cls, folder: Path) -> "Artefact":
        """Read an artefact and check every hash in it.

        Raises
        ------
        ArtefactError
            A file is missing or unsafe, a hash differs, a key is missing or the version is unknown.
        """
        weights = _read(folder / WEIGHTS, _MAX_WEIGHTS)
        found = sha256_bytes(weights)
        metadata = _read_config(folder / CONFIG)
        if metadata.get("weights_sha256") != found and (folder / ANNOUNCED).is_file():
            metadata = _read_config(folder / ANNOUNCED)
        _check(metadata, str(folder))
        if metadata.get("weights_sha256") != found:
            raise ArtefactError(
                f"{folder / WEIGHTS}: found sha256 {found[:16]}…, {CONFIG} says "
                f"{str(metadata.get('weights_sha256'))[:16]}…; the files do not belong together"
            )
        return cls(tensor_file.parse(weights), metadata)

    def _sealed(self, weights: bytes) -> dict[str, Any]:
        return {
            "fedprompt_version": VERSION,
            **self.metadata,
            "classes_sha256": sha256_bytes(canonical_json(self.metadata.get("classes"))),
            "weights_sha256": sha256_bytes(weights),
        }


def load_artefact(path: Path) -> Artefact:
    """Read an artefact folder, or the one inside a run's folder."""
    return Artefact.load(path / FOLDER if (path / FOLDER).is_dir() else path)


def _check(metadata: Mapping[str, Any], where: str) -> None:
    _check_version(metadata.get("fedprompt_version"), where)
    for key, kind in REQUIRED.items():
        if not isinstance(metadata.get(key), kind):
            raise ArtefactError(
                f"{where}: {key!r} is {str(metadata.get(key, 'missing'))[:60]}, expected "
                f"{getattr(kind, '__name__', kind)}; the configuration is incomplete"
            )
    classes = metadata["classes"]
    if not classes or not all(isinstance(name, str) and name for name in classes):
        raise ArtefactError(f"{where}: 'classes' must be a list of names; it is empty or damaged")
    if metadata.get("classes_sha256") != sha256_bytes(canonical_json(classes)):
        raise ArtefactError(
            f"{where}: the class list does not match its hash; names or their order were changed"
        )
    backbone = metadata["backbone"].get("sha256")
    if not isinstance(backbone, str) or not re.fullmatch(r"[0-9a-f]{64}", backbone):
        raise ArtefactError(f"{where}: backbone.sha256 is missing; the CLIP cannot be checked")
    template = metadata["template"]
    if template.count("{}") != 1 or set("{}") & set(template.replace("{}", "")):
        raise ArtefactError(  # other braces would read attributes, or pad to any length
            f"{where}: 'template' is {template[:60]!r}, expected text with {{}} once and no other "
            "braces"
        )


def _check_version(version: object, where: str) -> None:
    match = re.fullmatch(r"([0-9]{1,6})\.([0-9]{1,6})\.[0-9]+\S*", str(version)[:100])
    newest = tuple(int(part) for part in VERSION.split(".")[:2])
    if match is None or (int(match[1]), int(match[2])) > newest:
        raise ArtefactError(
            f"{where}: written by fedprompt {str(version)[:40]}, this release reads up to "
            f"{newest[0]}.{newest[1]}; upgrade fedprompt or export the prompt again"
        )


def _read_config(path: Path) -> dict[str, Any]:
    try:
        metadata = json.loads(_read(path, _MAX_CONFIG), parse_constant=_refuse_constant)
        canonical_json(metadata)  # what cannot be written again (1e999, half a character) is damage
    except (ValueError, RecursionError) as error:
        raise ArtefactError(f"{path} is not JSON: {error}") from None
    if not isinstance(metadata, dict):
        raise ArtefactError(f"{path} holds no table of settings; it is damaged")
    return metadata


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is no JSON number")


def _read(path: Path, limit: int) -> bytes:
    if not path.is_file():
        near = [p.name for p in path.parent.glob("*") if p.suffix in _PICKLED]
        extra = f"; {', '.join(near)} is never opened (pickle)" if near else ""
        raise ArtefactError(
            f"{path} does not exist{extra}; give the folder of a run, or of an artefact, "
            f"which holds {WEIGHTS} and {CONFIG}"
        )
    if path.stat().st_size > limit:
        raise ArtefactError(f"{path} has {path.stat().st_size:,} bytes; at most {limit:,} are read")
    try:
        return path.read_bytes()
    except OSError as error:
        raise ArtefactError(f"{path} could not be read: {error.strerror}") from None
