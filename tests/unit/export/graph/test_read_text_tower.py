from typing import Any

import pytest

from export.graph.read_text_tower import read_text
from fedprompt.errors import GraphError
from tests.conftest import tiny_clip


def test_sizes_are_read() -> None:
    text = read_text(tiny_clip())
    assert (text.width, text.joint, text.heads, len(text.blocks)) == (32, 24, 4, 3)
    assert (text.activation, text.end) == ("gelu", None)
    assert text.embedding.shape == (49408, 32)


@pytest.mark.parametrize("settings", [{"no_causal_mask": True}, {"pool_type": "last"}])
def test_a_tower_that_reads_elsewhere_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(GraphError, match=r"causal.*without --open-vocabulary"):
        read_text(tiny_clip(**settings))
