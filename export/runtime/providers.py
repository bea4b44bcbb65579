"""Choose where ONNX Runtime runs, and notice when it quietly runs somewhere else."""

import importlib
import importlib.metadata
from typing import Any

from fedprompt.errors import ProviderError

TENSORRT = "TensorrtExecutionProvider"
CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"
NAMES = {"tensorrt": TENSORRT, "cuda": CUDA, "cpu": CPU}  # in order of preference

_PACKAGES = ("onnxruntime", "onnxruntime-gpu")


def onnx_runtime() -> Any:
    """Return the onnxruntime module, of which a machine may have one package only.

    Both packages write into ``site-packages/onnxruntime``; which of the two runs is then chance.

    Raises
    ------
    ProviderError
        Says what is installed and what to do.
    """
    if all(_installed(name) for name in _PACKAGES):
        raise ProviderError(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other; run "
            "`pip uninstall -y onnxruntime onnxruntime-gpu`, then install the one you need"
        )
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        raise ProviderError(
            f"ONNX Runtime is not installed or broken ({error}); run `pip install "
            "'fedprompt[edge]'` for the CPU or `pip install 'fedprompt[gpu]'` for CUDA"
        ) from None


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def choose(asked: str | None, available: list[str]) -> list[str]:
    """Return the providers to try, best first.

    TensorRT is left out unless asked for: it is tried later, for a ``portable`` graph only, because
    fused operators would cut the graph into pieces.

    Raises
    ------
    ProviderError
        The provider is unknown or not there.
    """
    if asked is None:
        return [p for p in NAMES.values() if p in available and p != TENSORRT]
    if asked not in NAMES:
        raise ProviderError(f"provider {asked!r} is unknown; expected one of {', '.join(NAMES)}")
    if NAMES[asked] not in available:
        here = ", ".join(short for short, name in NAMES.items() if name in available)
        raise ProviderError(
            f"this ONNX Runtime has no {asked} provider (it has {here or 'none of ours'}); "
            "install fedprompt[gpu] for CUDA, or choose another provider"
        )
    return list(dict.fromkeys([NAMES[asked], CPU]))


def check_fallback(asked: str | None, running: list[str], *, allow_cpu: bool) -> None:
    """Refuse a silent fall back to the CPU.

    ONNX Runtime lists a provider whose libraries are missing, logs a line when it does not start
    and goes on without it; only the session knows what runs.

    Raises
    ------
    ProviderError
        The provider that was asked for does not run, or only the CPU runs and is not allowed.
    """
    first = running[0] if running else "nothing"
    if asked is not None and NAMES[asked] != first:
        raise ProviderError(
            f"asked for {asked}, but ONNX Runtime fell back to {first}: the driver or "
            "libraries are missing (`fedprompt doctor`); install them, or ask for cpu"
        )
    if asked is None and not allow_cpu and first == CPU:
        raise ProviderError(
            "only the CPU runs here and allow_cpu is off; install fedprompt[gpu] and its driver"
        )
