import dataclasses

import pytest
import torch
from jaxtyping import TypeCheckError

from fedprompt.backbone.prompts import ImagePrompts, TextPrompts


def test_prompts_are_frozen_values_with_checked_shapes() -> None:
    text = TextPrompts(tokens=torch.zeros(1, 4, 32))
    assert text.places is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        text.tokens = torch.zeros(1, 4, 32)
    with pytest.raises(TypeCheckError):
        TextPrompts(tokens=torch.zeros(4, 32))
    with pytest.raises(TypeCheckError):
        ImagePrompts(tokens=torch.zeros(4, 48))
