"""Choose where ONNX Runtime runs, and notice when it quietly runs somewhere else."""

import importlib
import importlib.metadata
from typing import Any

from fedprompt.errors import ProviderError

TENSORRT = "TensorrtExecutionProvider"
CUDA = "CUDAExecutionProvider"
OPENVINO = "OpenVINOExecutionProvider"
COREML = "CoreMLExecutionProvider"
DIRECTML = "DmlExecutionProvider"
CPU = "CPUExecutionProvider"
NAMES = {  # in order of preference
    "tensorrt": TENSORRT,
    "cuda": CUDA,
    "openvino": OPENVINO,
    "coreml": COREML,
    "directml": DIRECTML,
    "cpu": CPU,
}
NVIDIA = (TENSORRT, CUDA)
FUSED = (CUDA, CPU)  # those that have kernels of the operators that the exporter fuses

_PACKAGES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml")


def onnx_runtime() -> Any:
    """Return the onnxruntime module, of which a machine may have one package only.

    All of them write into ``site-packages/onnxruntime``; which of two runs is then chance.

    Raises
    ------
    ProviderError
        Says what is installed and what to do.
    """
    installed = [name for name in _PACKAGES if _installed(name)]
    if len(installed) > 1:
        raise ProviderError(
            f"{' and '.join(installed)} are installed at once and overwrite each other; run "
            f"`pip uninstall -y {' '.join(installed)}`, then install the one you need"
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

    Those without kernels of the fused operators are left out unless asked for: they are tried
    later (`better`), for a ``portable`` graph only, because fused operators would cut the graph
    into pieces.

    Raises
    ------
    ProviderError
        The provider is unknown or not there.
    """
    if asked is None:
        return [p for p in FUSED if p in available]
    if asked not in NAMES:
        raise ProviderError(f"provider {asked!r} is unknown; expected one of {', '.join(NAMES)}")
    if NAMES[asked] not in available:
        here = ", ".join(short for short, name in NAMES.items() if name in available)
        raise ProviderError(
            f"this ONNX Runtime has no {asked} provider (it has {here or 'none of ours'}); "
            "install fedprompt[gpu] for CUDA, or choose another provider"
        )
    return list(dict.fromkeys([NAMES[asked], CPU]))


def better(running: str, available: list[str]) -> list[str]:
    """Return what is there and comes before the provider that runs, best first."""
    order = list(NAMES.values())
    before = order[: order.index(running)] if running in order else []
    return [p for p in before if p in available and p not in FUSED]


def options_of(provider: str, *, cuda_graphs: bool) -> dict[str, str]:
    """Return a provider's own options.

    Source: https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html
    """
    if provider != CUDA:
        return {}
    # sums of a half-precision normalisation are kept in single precision
    strict = {"enable_skip_layer_norm_strict_mode": "1"}
    return strict | ({"enable_cuda_graph": "1"} if cuda_graphs else {})


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
