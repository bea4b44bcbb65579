from dataclasses import dataclass

import numpy as np
import pytest
import torch

from export.fold.constants import Constants
from fedprompt.backbone.prompts import ImagePrompts
from fedprompt.errors import GraphError
from fedprompt.prompts.attention import FeatureAttention
from fedprompt.prompts.method import Folded

UNIT = np.eye(3, 4, dtype=np.float32)
TOKENS = np.arange(24, dtype=np.float32).reshape(1, 2, 12)
CPU = torch.device("cpu")


def test_a_text_prompt_becomes_class_vectors() -> None:
    found = Constants.of(Folded(class_vectors=torch.from_numpy(UNIT).double().requires_grad_()))
    np.testing.assert_array_equal(found.class_vectors, UNIT)
    assert found.class_vectors.dtype == np.float32
    assert found.prompts(CPU) is found.bias is found.adapter is found.mixture is None
    assert found.describe() == {"class_vectors": [3, 4]}


def test_what_no_graph_is_written_for_is_refused_not_dropped() -> None:
    @dataclass(frozen=True, eq=False, kw_only=True)
    class Later(Folded):
        temperature: float | None = None

    vectors = torch.from_numpy(UNIT)
    assert Constants.of(Later(class_vectors=vectors)).describe() == {"class_vectors": [3, 4]}
    with pytest.raises(GraphError, match="folds to temperature, which the exporter does not write"):
        Constants.of(Later(class_vectors=vectors, temperature=2.0))


def test_every_field_of_a_folded_prompt_becomes_arrays() -> None:
    drawn = torch.Generator().manual_seed(0)
    attention = FeatureAttention(
        hidden=torch.randn(4, 4, generator=drawn),
        hidden_bias=torch.randn(4, generator=drawn),
        gate=torch.randn(4, 4, generator=drawn),
        gate_bias=torch.randn(4, generator=drawn),
    )
    folded = Folded(
        class_vectors=torch.from_numpy(UNIT),
        visual=ImagePrompts(tokens=torch.from_numpy(TOKENS), first=5),
        bias=torch.arange(3.0),
        adapter=attention,
        mixture=torch.from_numpy(np.stack([UNIT, -UNIT])),
    )
    found = Constants.of(folded)
    assert found.visual is not None
    np.testing.assert_array_equal(found.visual.tokens, TOKENS)
    np.testing.assert_array_equal(found.bias, [0, 1, 2])
    np.testing.assert_array_equal(found.mixture, [UNIT, -UNIT])
    assert found.describe() == {
        "class_vectors": [3, 4],
        "visual_prompts": [1, 2, 12],
        "first_layer": 5,
        "bias": True,
        "adapter": True,
        "domains": 2,
    }
    prompts = found.prompts(CPU)
    assert prompts is not None
    assert torch.equal(prompts.tokens, torch.from_numpy(TOKENS))
    assert prompts.first == 5
    assert found.adapter is not None
    features = torch.from_numpy(UNIT)
    assert torch.equal(found.adapter.on(CPU)(features), attention(features))
