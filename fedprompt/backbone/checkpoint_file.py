"""Read the tensors of a checkpoint file without running anything that it holds.

Files come as people publish them: safetensors; torch's own, plain or inside a training state; and
TorchScript archives, as OpenAI published CLIP. An archive's code is never run: of its ``data.pkl``
an unpickler builds tensors and empty modules, and refuses whatever else it names.
"""

import logging
import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from fedprompt.errors import BackboneError

Weights = dict[str, Tensor]

_log = logging.getLogger(__name__)
_KNOWN = ("state_dict", "model_state_dict", "model", "module", "ema")  # in the order of preference
_POINTER = b"version https://git-lfs.github.com"
_DEPTH = 64  # of modules in modules, or of dictionaries in dictionaries
_NAMED = 3  # names in an error
_MOST_PICKLE = 64 << 20  # bytes of an archive's structure, without its tensors
_NO_CHECKPOINT = (
    "is damaged or no checkpoint; expected safetensors, what torch.save wrote of a state dict, or "
    "a TorchScript archive: copy or download it again"
)


def read_checkpoint(path: Path) -> Weights:
    """Return a file's tensors by name.

    Raises
    ------
    BackboneError
        Says what the file is instead, and what to do.
    """
    try:
        refuse_pointer(path)
        found = _reader(path)(path)
    except OSError as error:
        raise BackboneError(f"{path} cannot be read: {error.strerror or error}") from None
    return _state_dict(found, path)


def refuse_pointer(path: Path) -> None:
    """Refuse a file that stands for another in a clone without Git LFS, or an empty one.

    Raises
    ------
    BackboneError
        It is one.
    """
    with path.open("rb") as file:
        head = file.read(len(_POINTER))
    if head == _POINTER:
        raise BackboneError(
            f"{path} is a pointer of Git LFS, not the weights themselves; run `git lfs pull` in "
            "its repository, or download the file itself"
        )
    if not head:
        raise BackboneError(f"{path} is empty; copy or download it again")


def _reader(path: Path) -> Callable[[Path], Any]:
    with path.open("rb") as file:
        head = file.read(9)
    if path.suffix == ".safetensors" or head[8:] == b"{":
        return _read_safetensors
    return _read_archive if _is_torchscript(path) else _read_torch


def _read_safetensors(path: Path) -> Weights:
    try:
        found: Weights = load_file(path)
    except SafetensorError as error:
        raise BackboneError(f"{path} {_NO_CHECKPOINT} ({error})") from None
    return found


def _read_torch(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the protocol, for those who wrote the file
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not re.search(r"global|unsupported class", str(error), re.IGNORECASE):
            raise BackboneError(f"{path} {_NO_CHECKPOINT}") from None
        raise BackboneError(
            f"{path} holds more than tensors, and to read that could run code; it is not opened. "
            "Where you trust it, load it and torch.save its state dict alone"
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError, AttributeError, TypeError):
        raise BackboneError(f"{path} {_NO_CHECKPOINT}") from None


# TorchScript


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    return any(name.endswith("/constants.pkl") for name in names)


def _read_archive(path: Path) -> Weights:
    """Return the parameters and buffers of a TorchScript archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            [listed] = [
                n for n in archive.namelist() if n.count("/") == 1 and n.endswith("/data.pkl")
            ]
            if archive.getinfo(listed).file_size > _MOST_PICKLE:
                raise pickle.UnpicklingError("its structure is too large")
            with archive.open(listed) as file:
                found = _Unpickler(file, archive, listed.removesuffix(".pkl")).load()
        return dict(_tensors(found, "", 0))
    except (
        pickle.UnpicklingError, zipfile.BadZipFile, EOFError, ValueError, KeyError, TypeError,
        AttributeError, IndexError, RuntimeError, RecursionError, NotImplementedError,
        OverflowError,
    ) as error:  # fmt: skip
        reason = " ".join(str(error).split())[:200]
        raise BackboneError(
            f"{path} is a TorchScript archive whose tensors cannot be read without running its "
            f"code ({reason}); where you trust it, save torch.jit.load(...).state_dict() with "
            "torch.save"
        ) from None


class _Module:
    """Stand for any module of an archive."""


class _Storage:
    """Stand for a class of torch's storages."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype


_STORAGES = {
    f"{name}Storage": _Storage(dtype)
    for name, dtype in {
        "Float": torch.float32, "Half": torch.float16, "BFloat16": torch.bfloat16,
        "Double": torch.float64, "Long": torch.int64, "Int": torch.int32, "Short": torch.int16,
        "Char": torch.int8, "Byte": torch.uint8, "Bool": torch.bool,
    }.items()
}  # fmt: skip


class _Unpickler(pickle.Unpickler):
    """Build tensors and empty modules; refuse every other name."""

    def __init__(self, file: Any, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(file)
        self._archive, self._folder = archive, folder
        self._kept: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module == "__torch__" or module.startswith("__torch__."):
            return _Module
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch.jit._pickle":  # typed lists and dictionaries
            return _first
        raise pickle.UnpicklingError(f"it names {module}.{name}"[:100])

    def persistent_load(self, identity: Any) -> Tensor:
        _, storage, key, _, count = identity
        if key not in self._kept:
            info = self._archive.getinfo(f"{self._folder}/{key}")
            if info.compress_type != zipfile.ZIP_STORED or info.file_size > info.compress_size:
                raise pickle.UnpicklingError("its tensors are compressed")
            content = bytearray(self._archive.read(info))
            if len(content) != count * storage.dtype.itemsize:
                raise pickle.UnpicklingError(f"tensor {key} has {len(content)} bytes")
            empty = torch.empty(0, dtype=storage.dtype)
            self._kept[key] = torch.frombuffer(content, dtype=storage.dtype) if content else empty
        return self._kept[key]


def _rebuild(storage: Tensor, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
    """Return a view of a storage; torch refuses one that does not lie inside."""
    if prod(size) > storage.numel():
        raise pickle.UnpicklingError("a tensor is larger than its storage")
    return torch.as_strided(storage, size, stride, offset)


def _first(value: Any, *_: Any) -> Any:
    return value


def _tensors(module: Any, prefix: str, depth: int) -> Iterator[tuple[str, Tensor]]:
    if depth > _DEPTH:
        raise pickle.UnpicklingError("its modules are nested too deeply")
    for name, value in vars(module).items():
        if isinstance(value, Tensor):
            yield f"{prefix}{name}", value
        elif isinstance(value, _Module):
            yield from _tensors(value, f"{prefix}{name}.", depth + 1)


# Dictionaries


def _state_dict(found: Any, path: Path) -> Weights:
    """Return the one dictionary of tensors, out of whatever was saved around it."""
    for _ in range(_DEPTH):
        if not isinstance(found, Mapping):
            break
        inner = {k: v for k, v in found.items() if isinstance(v, Mapping) and _has_tensors(v)}
        chosen = [key for key in _KNOWN if key in inner] or list(inner)
        tensors = {str(k): v for k, v in found.items() if isinstance(v, Tensor)}
        if not chosen or (tensors and chosen[0] not in _KNOWN):
            if tensors:
                return tensors
            break
        if chosen[0] not in _KNOWN and len(chosen) > 1:
            raise BackboneError(
                f"{path} holds several dictionaries of tensors: {listed(inner)}; save the one that "
                "is meant alone, with torch.save"
            )
        if len(inner) > 1:
            _log.warning(
                "%s: the weights are those of %r; %s beside it is not used",
                path,
                chosen[0],
                listed(key for key in inner if key != chosen[0]),
            )
        found = found[chosen[0]]
    what = (
        f"a dictionary of {listed(found)}" if isinstance(found, Mapping) else type(found).__name__
    )
    raise BackboneError(f"{path} holds {what}, no tensors by name; save a model's state dict")


def _has_tensors(value: Any, depth: int = 0) -> bool:
    if isinstance(value, Tensor):
        return True
    inner = value.items() if isinstance(value, Mapping) and depth < 4 else ()
    return any(isinstance(key, str) and _has_tensors(part, depth + 1) for key, part in inner)


def listed(names: Iterable[Any]) -> str:
    """Return the first few names, and how many there are besides."""
    texts = [str(name)[:80] for name in names]
    more = f" and {len(texts) - _NAMED} more" if len(texts) > _NAMED else ""
    return ", ".join(texts[:_NAMED]) + more or "nothing"
