import importlib
import importlib.metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from export.precision import Recipe
from export.runtime import Classifier, providers
from export.runtime.providers import (
    COREML,
    CPU,
    CUDA,
    DIRECTML,
    OPENVINO,
    TENSORRT,
    better,
    check_fallback,
    choose,
    onnx_runtime,
    options_of,
)
from fedprompt.backbone.clip import FrozenClip
from fedprompt.errors import ProviderError
from tests.classifier_file import write_classifier


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
    for name in ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "built-from-source"):
        installed(monkeypatch, name)
        assert onnx_runtime() is onnxruntime


def test_the_best_provider_is_chosen() -> None:
    everything = ["AzureExecutionProvider", CPU, TENSORRT, CUDA]
    assert choose(None, everything) == [CUDA, CPU]
    assert choose(None, [CPU]) == [CPU]
    assert choose("tensorrt", everything) == [TENSORRT, CPU]
    assert choose("cpu", everything) == [CPU]


def test_what_has_no_fused_operators_comes_later_and_in_order() -> None:
    everything = [CPU, DIRECTML, COREML, OPENVINO, CUDA, TENSORRT]
    assert choose(None, [CPU, COREML]) == [CPU]
    assert better(CPU, everything) == [TENSORRT, OPENVINO, COREML, DIRECTML]
    assert better(CUDA, everything) == [TENSORRT]
    assert better(CPU, [CPU]) == []
    assert better("SomebodysExecutionProvider", everything) == []
    assert choose("directml", everything) == [DIRECTML, CPU]


def test_only_cuda_has_options_and_graphs_are_one() -> None:
    assert options_of(CPU, cuda_graphs=True) == {}
    assert "enable_cuda_graph" not in options_of(CUDA, cuda_graphs=False)
    assert options_of(CUDA, cuda_graphs=True)["enable_cuda_graph"] == "1"


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
        return [TENSORRT, CUDA, OPENVINO, CPU]

    def InferenceSession(self, data: bytes, options: Any, **settings: Any) -> Any:
        asked = [name for name, _ in settings["providers"]]
        self.asked.append(asked)
        if self.raises and asked != [CPU]:
            raise RuntimeError("CUDA failure 35")
        if self.portable and TENSORRT in asked:
            raise RuntimeError("libnvinfer.so.10: cannot open shared object file")
        return onnxruntime.InferenceSession(data, options, providers=[CPU])


@pytest.mark.parametrize("raises", [False, True])
def test_onnxruntime_gpu_without_a_driver(
    monkeypatch: pytest.MonkeyPatch,
    classifier_file: Path,
    raises: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    library = Listing(raises=raises)
    monkeypatch.setattr(providers, "onnx_runtime", lambda: library)
    assert Classifier(classifier_file).providers == (CPU,)  # allowed, and told
    [told] = caplog.messages
    assert told.startswith(f"{CUDA} did not start; this runs on {CPU}")
    assert library.asked[0] == [CUDA, CPU]  # no TensorRT for a graph with fused operators
    with pytest.raises(ProviderError, match="only the CPU"):
        Classifier(classifier_file, allow_cpu=False)
    if not raises:
        with pytest.raises(ProviderError, match="fell back"):
            Classifier(classifier_file, provider="cuda")
        with pytest.raises(ProviderError, match="fell back"):
            Classifier(classifier_file, cuda_graphs=True)


def test_graphs_are_cuda_s_alone(classifier_file: Path) -> None:
    with pytest.raises(ProviderError, match="has no cuda provider"):
        Classifier(classifier_file, cuda_graphs=True)
    with pytest.raises(ProviderError, match="they need the provider cuda"):
        Classifier(classifier_file, provider="cpu", cuda_graphs=True)


def test_a_portable_graph_opens_where_tensorrt_s_libraries_are_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, clip: FrozenClip, constants: Any
) -> None:
    library, path = Listing(portable=True), tmp_path / "c.onnx"
    none = np.zeros((0, 32, 32, 3), np.uint8)
    names = tuple("abcde")
    recipe = Recipe("portable", "fp32")
    write_classifier(path, clip, constants, names, none, artefact_sha256="", recipe=recipe)
    monkeypatch.setattr(providers, "onnx_runtime", lambda: library)
    assert Classifier(path).providers == (CPU,)
    # each that may be better is tried, and left as it is not what then runs
    assert library.asked == [[CUDA, CPU], [TENSORRT, CPU], [OPENVINO, CPU]]


class Better(Listing):
    """Stand in for onnxruntime-openvino: no CUDA, and OpenVINO takes what is portable."""

    def get_available_providers(self) -> list[str]:
        return [OPENVINO, CPU]

    def InferenceSession(self, data: bytes, options: Any, **settings: Any) -> Any:
        asked = [name for name, _ in settings["providers"]]
        session = onnxruntime.InferenceSession(data, options, providers=[CPU])
        session.get_providers = lambda: asked
        return session


def test_what_is_better_than_the_first_choice_is_no_fall_back(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    clip: FrozenClip,
    constants: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path, none = tmp_path / "c.onnx", np.zeros((0, 32, 32, 3), np.uint8)
    recipe = Recipe("portable", "fp32")
    write_classifier(path, clip, constants, tuple("abcde"), none, artefact_sha256="", recipe=recipe)
    monkeypatch.setattr(providers, "onnx_runtime", Better)
    assert Classifier(path).providers[0] == OPENVINO
    assert not caplog.messages
