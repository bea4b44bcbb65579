from contextlib import nullcontext

import pytest
import torch

from fedprompt.backbone.precision import tower_precision


def test_towers_run_in_bf16_on_a_gpu_that_has_it_and_in_training_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    has_bf16 = [True]
    asked: list[tuple[object, ...]] = []
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: has_bf16[0])
    monkeypatch.setattr(torch, "autocast", lambda *given: asked.append(given) or nullcontext())
    tower_precision(gpu)
    assert asked == [("cuda", torch.bfloat16)]
    tower_precision(cpu)
    with torch.no_grad():
        tower_precision(gpu)
    has_bf16[0] = False
    tower_precision(gpu)
    assert len(asked) == 1
