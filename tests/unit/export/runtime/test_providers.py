import importlib
import importlib.metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from export.runtime import Classifier, providers
from export.runtime.providers import CPU, CUDA, TENSORRT, check_fallback, choose, onnx_runtime
from export.write import write_classifier
from fedprompt.backbone.clip import FrozenClip
from fedprompt.errors import ProviderError


def installed(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    def version(name: str) -> str:
        if name in names:
            return "1.32.0"
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)


def test_both_packages_are_refused(monkeypatch: pytest.MonkeyPatch, classifier_file: Path) -> None:
    installed(monkeypatch, "onnxruntime", "onnxruntime-gpu")
    with pytest.raises(ProviderError, match="pip uninstall"):
        Classifier(classifier_file)


def test_no_package_is_explained(monkeypatch: pytest.MonkeyPatch, classifier_file: Path) -> None:
    def missing(name: str) -> Any:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ProviderError, match=r"fedprompt\[edge\]"):
        Classifier(classifier_file)


def test_one_package_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("onnxruntime", "onnxruntime-gpu", "built-from-source"):
        installed(monkeypatch, name)
        assert onnx_runtime() is onnxruntime


def test_the_best_provider_is_chosen() -> None:
    everything = ["AzureExecutionProvider", CPU, TENSORRT, CUDA]
    assert choose(None, everything) == [CUDA, CPU]
    assert choose(None, [CPU]) == [CPU]
    assert choose("tensorrt", everything) == [TENSORRT, CPU]
    assert choose("cpu", everything) == [CPU]


def test_a_provider_that_is_not_there_is_refused(classifier_file: Path) -> None:
    with pytest.raises(ProviderError, match="has no cuda provider"):
        Classifier(classifier_file, provider="cuda")
    with pytest.raises(ProviderError, match="'gpu' is unknown; expected one of tensorrt, cuda"):
        Classifier(classifier_file, provider="gpu")
    with pytest.raises(ProviderError, match="allow_cpu"):
        Classifier(classifier_file, allow_cpu=False)


def test_a_silent_fall_back_is_noticed() -> None:
    with pytest.raises(ProviderError, match=r"asked for cuda, but .* fell back to CPU"):
        check_fallback("cuda", [CPU], allow_cpu=True)
    with pytest.raises(ProviderError, match="only the CPU"):
        check_fallback(None, [CPU], allow_cpu=False)
    check_fallback(None, [CPU], allow_cpu=True)
    check_fallback("cuda", [CUDA, CPU], allow_cpu=False)


class Listing:
    """Stand in for onnxruntime-gpu without a driver: it lists CUDA and runs on the CPU."""

    SessionOptions = onnxruntime.SessionOptions

    def __init__(self, *, raises: bool = False, portable: bool = False) -> None:
        self.raises, self.portable, self.asked = raises, portable, list[list[str]]()

    def get_available_providers(self) -> list[str]:
        return [TENSORRT, CUDA, CPU]

    def InferenceSession(self, data: bytes, options: Any, **settings: Any) -> Any:
        self.asked.append(settings["providers"])
        if self.raises and settings["providers"] != [CPU]:
            raise RuntimeError("CUDA failure 35")
        if self.portable and TENSORRT in settings["providers"]:
            raise RuntimeError("libnvinfer.so.10: cannot open shared object file")
        return onnxruntime.InferenceSession(data, options, providers=[CPU])


@pytest.mark.parametrize("raises", [False, True])
def test_onnxruntime_gpu_without_a_driver(
    monkeypatch: pytest.MonkeyPatch, classifier_file: Path, raises: bool
) -> None:
    library = Listing(raises=raises)
    monkeypatch.setattr(providers, "onnx_runtime", lambda: library)
    assert Classifier(classifier_file).providers == (CPU,)  # allowed, and shown
    assert library.asked[0] == [CUDA, CPU]  # no TensorRT for a graph with fused operators
    with pytest.raises(ProviderError, match="only the CPU"):
        Classifier(classifier_file, allow_cpu=False)
    if not raises:
        with pytest.raises(ProviderError, match="fell back"):
            Classifier(classifier_file, provider="cuda")


def test_a_portable_graph_opens_where_tensorrt_s_libraries_are_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, clip: FrozenClip, class_vectors: Any
) -> None:
    library, path = Listing(portable=True), tmp_path / "c.onnx"
    none = np.zeros((0, 32, 32, 3), np.uint8)
    names = tuple("abcde")
    write_classifier(path, clip, class_vectors, names, none, artefact_sha256="", flavour="portable")
    monkeypatch.setattr(providers, "onnx_runtime", lambda: library)
    assert Classifier(path).providers == (CPU,)
    assert library.asked == [[CUDA, CPU], [TENSORRT, CUDA, CPU]]
