from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from export.fold.constants import Adapter, Constants, VisualPrompts
from export.fold.validate_constants import require_sound
from fedprompt.errors import GraphError

UNIT = np.eye(3, 4, dtype=np.float32)
TOKENS = np.ones((2, 3, 6), np.float32)
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
        {"visual": VisualPrompts(tokens=TOKENS, first=7)},
        {"class_vectors": 3 * UNIT, "bias": np.zeros(3, np.float32)},
        {"adapter": adapter()},
        {"mixture": DOMAINS, "visual": ONE},
    ],
)
def test_what_prompts_fold_to_is_sound(fields: dict[str, Any]) -> None:
    require_sound(Constants(**{"class_vectors": UNIT} | fields))


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        ("class vectors", {"class_vectors": 3 * UNIT}),
        ("class vectors", {"class_vectors": UNIT * np.nan, "bias": np.zeros(3, np.float32)}),
        ("class vectors", {"class_vectors": UNIT[0]}),
        ("visual prompts", {"visual": VisualPrompts(tokens=TOKENS * np.nan)}),
        ("visual prompts", {"visual": VisualPrompts(tokens=TOKENS[:0])}),
        ("visual prompts", {"visual": VisualPrompts(tokens=TOKENS[0])}),
        ("visual prompts", {"visual": VisualPrompts(tokens=TOKENS, first=-1)}),
        ("bias", {"bias": np.zeros(4, np.float32)}),
        ("bias", {"bias": np.full(3, np.inf, np.float32)}),
        ("adapter's gate", {"adapter": adapter(gate=np.eye(3, dtype=np.float32))}),
        ("adapter's hidden_bias", {"adapter": adapter(hidden_bias=np.eye(4, dtype=np.float32))}),
        ("domains' class vectors", {"mixture": 2 * DOMAINS, "visual": ONE}),
        ("domains' class vectors", {"mixture": DOMAINS}),
        ("domains' class vectors", {"mixture": DOMAINS[:, :2], "visual": ONE}),
        ("domains' class vectors", {"mixture": DOMAINS, "visual": VisualPrompts(tokens=TOKENS)}),
        (
            "domains' class vectors",
            {"mixture": DOMAINS, "visual": VisualPrompts(tokens=ONE.tokens, first=1)},
        ),
    ],
)
def test_what_none_folds_to_is_refused(message: str, fields: dict[str, Any]) -> None:
    with pytest.raises(GraphError, match=message):
        require_sound(Constants(**{"class_vectors": UNIT} | fields))
