from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from export.fold.constants import Adapter, Constants, VisualPrompts, validate_constants
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


DEEP = np.ones((2, 3, 6), np.float32)
ONE = VisualPrompts(tokens=np.ones((1, 2, 6), np.float32))
DOMAINS = np.stack([UNIT, UNIT[:, ::-1]])


def adapter(**changes: npt.NDArray[np.float32]) -> Adapter:
    square, flat = np.eye(4, dtype=np.float32), np.zeros(4, np.float32)
    parts = {"hidden": square, "hidden_bias": flat, "gate": square, "gate_bias": flat}
    return Adapter(**parts | changes)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"visual": VisualPrompts(tokens=DEEP, first=7)},
        {"class_vectors": 3 * UNIT, "bias": np.zeros(3, np.float32)},
        {"adapter": adapter()},
        {"mixture": DOMAINS, "visual": ONE},
    ],
)
def test_what_prompts_fold_to_is_sound(fields: dict[str, Any]) -> None:
    validate_constants(Constants(**{"class_vectors": UNIT} | fields))


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        ("class vectors", {"class_vectors": 3 * UNIT}),
        ("class vectors", {"class_vectors": UNIT * np.nan, "bias": np.zeros(3, np.float32)}),
        ("class vectors", {"class_vectors": UNIT[0]}),
        ("visual prompts", {"visual": VisualPrompts(tokens=DEEP * np.nan)}),
        ("visual prompts", {"visual": VisualPrompts(tokens=DEEP[:0])}),
        ("visual prompts", {"visual": VisualPrompts(tokens=DEEP[0])}),
        ("visual prompts", {"visual": VisualPrompts(tokens=DEEP, first=-1)}),
        ("bias", {"bias": np.zeros(4, np.float32)}),
        ("bias", {"bias": np.full(3, np.inf, np.float32)}),
        ("adapter's gate", {"adapter": adapter(gate=np.eye(3, dtype=np.float32))}),
        ("adapter's hidden_bias", {"adapter": adapter(hidden_bias=np.eye(4, dtype=np.float32))}),
        ("domains' class vectors", {"mixture": 2 * DOMAINS, "visual": ONE}),
        ("domains' class vectors", {"mixture": DOMAINS}),
        ("domains' class vectors", {"mixture": DOMAINS[:, :2], "visual": ONE}),
        ("domains' class vectors", {"mixture": DOMAINS, "visual": VisualPrompts(tokens=DEEP)}),
        (
            "domains' class vectors",
            {"mixture": DOMAINS, "visual": VisualPrompts(tokens=ONE.tokens, first=1)},
        ),
    ],
)
def test_what_none_folds_to_is_refused(message: str, fields: dict[str, Any]) -> None:
    with pytest.raises(GraphError, match=message):
        validate_constants(Constants(**{"class_vectors": UNIT} | fields))
