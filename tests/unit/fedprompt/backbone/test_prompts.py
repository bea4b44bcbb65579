import dataclasses
import os

import pytest
import torch
from jaxtyping import TypeCheckError

from fedprompt.backbone.prompts import ImagePrompts, TextPrompts


def test_prompts_are_frozen_values() -> None:
    text = TextPrompts(tokens=torch.zeros(1, 4, 32))
    assert text.places is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        text.tokens = torch.zeros(1, 4, 32)


@pytest.mark.skipif(
    os.environ.get("FEDPROMPT_CHECK_SHAPES") != "1", reason="`make test-all` checks shapes"
)
def test_shapes_of_prompts_are_checked() -> None:
    with pytest.raises(TypeCheckError):
        TextPrompts(tokens=torch.zeros(4, 32))
    with pytest.raises(TypeCheckError):
        ImagePrompts(tokens=torch.zeros(4, 48))
