"""A tiny CLIP in float64, where only a wrong formula differs by more than the last digits."""

import pytest

from fedprompt.backbone.clip import FrozenClip
from tests.conftest import tiny_clip


@pytest.fixture(scope="session")
def clip64() -> FrozenClip:
    return tiny_clip().double()
