import numpy as np
import onnx
import pytest

import export.parity.run_graph
from export.fold.constants import Constants
from export.graph.fuse import fuse
from export.parity.reference import reference_logits
from export.parity.run_graph import answers, open_graph
from export.precision.chain import rewrite_to
from fedprompt.backbone.clip import FrozenClip
from fedprompt.errors import ProviderError

Images = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


@pytest.fixture(scope="module")
def model(clip: FrozenClip, constants: Constants) -> onnx.ModelProto:
    return fuse(clip, constants)


def test_batches_of_several_sizes_are_answered_in_order(
    model: onnx.ModelProto, clip: FrozenClip, constants: Constants, images: Images
) -> None:
    many = np.concatenate([images, images[::-1], images])  # 24: batches of 1, 2, 5 and 16
    found = answers(open_graph(model), many)
    np.testing.assert_allclose(found, reference_logits(clip, constants, many), atol=1e-4)


def test_bf16_without_cuda_is_not_measured_and_so_refused(
    model: onnx.ModelProto, images: Images
) -> None:
    with pytest.raises(ProviderError, match="bf16 runs on CUDA only"):
        open_graph(rewrite_to(model, "bf16", images), "bf16")


def test_a_cuda_that_does_not_start_is_no_cuda(
    model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    """onnxruntime-gpu lists CUDA without its driver, and runs on the CPU in silence."""

    class Listed:
        def get_available_providers(self) -> list[str]:
            return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    class Fallen:
        def get_providers(self) -> list[str]:
            return ["CPUExecutionProvider"]

    monkeypatch.setattr(export.parity.run_graph, "onnx_runtime", Listed)
    monkeypatch.setattr(export.parity.run_graph, "start", lambda data, chosen: Fallen())
    with pytest.raises(ProviderError, match="bf16"):
        open_graph(model, "bf16")
