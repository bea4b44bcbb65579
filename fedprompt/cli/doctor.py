"""``fedprompt doctor``: what this machine has, what it lacks and what to do about it."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal

from fedprompt.data.cache import cache_folder
from fedprompt.errors import FedpromptError
from fedprompt.options import JsonOption, show

_TRAINING = ("torch", "torchvision", "open_clip_torch", "flwr", "flwr-datasets", "onnx")
_LEAST_DISK = 2.0  # GB, for features of some hundred thousand images and a few runs


@dataclass(frozen=True)
class Finding:
    """Hold one line of the report."""

    name: str
    status: Literal["ok", "missing", "note"]
    detail: str


def doctor(json: JsonOption = False) -> None:
    """Say what this machine has and lacks; exit 1 when something needed is missing."""
    findings = [check() for check in CHECKS]
    lines = "\n".join(f"{f.status:8}{f.name:16}{f.detail}" for f in findings)
    missing = [f.name for f in findings if f.status == "missing"]
    show({"findings": [asdict(f) for f in findings], "missing": missing}, lines, as_json=json)
    if missing:
        raise FedpromptError(f"missing: {', '.join(missing)}; the lines above say what to do")


def _machine() -> Finding:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    detail = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    return Finding("machine", "ok", f"{detail}, {cores} cores")


def _training() -> Finding:
    found, absent = [], []
    for name in _TRAINING:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            absent.append(name)
    if absent:
        detail = f"{', '.join(absent)} not installed; pip install 'fedprompt[cpu]' or '[gpu]'"
        return Finding("training", "note" if not found else "missing", detail)
    return Finding("training", "ok", ", ".join(found))


def _gpu() -> Finding:
    if importlib.util.find_spec("torch") is None:
        return Finding("GPU", "note", "torch is not installed: an edge installation")
    import torch

    if not torch.cuda.is_available():
        return Finding("GPU", "note", "none that torch can use; everything runs on the CPU")
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    bf16 = "with" if torch.cuda.is_bf16_supported() else "without"
    return Finding("GPU", "ok", f"{', '.join(names)}; {bf16} bf16")


def _onnx_runtime() -> Finding:
    from export.runtime.providers import onnx_runtime

    try:
        runtime = onnx_runtime()
    except FedpromptError as error:
        return Finding("ONNX Runtime", "missing", str(error))
    providers = ", ".join(runtime.get_available_providers())
    return Finding("ONNX Runtime", "ok", f"{runtime.__version__}: {providers}")


def _cache() -> Finding:
    folder = cache_folder()
    existing = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not (existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)):
        return Finding("cache", "missing", f"{folder} cannot be written; set FEDPROMPT_CACHE")
    free = shutil.disk_usage(existing).free / 1e9
    status: Literal["ok", "note"] = "ok" if free >= _LEAST_DISK else "note"
    return Finding("cache", status, f"{folder}, {free:.0f} GB free")


CHECKS: tuple[Callable[[], Finding], ...] = (_machine, _training, _gpu, _onnx_runtime, _cache)
