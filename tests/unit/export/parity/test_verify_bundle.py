from pathlib import Path

import numpy as np
import pytest

from export.parity.verify_bundle import VECTOR_BOUND, verify_bundle
from export.runtime.open_vocabulary.swap import swap
from fedprompt.backbone.clip import FrozenClip
from fedprompt.errors import GraphError
from tests.prompts import tuned


def test_what_was_exported_is_measured_after_a_swap_too(bundle: Path, clip: FrozenClip) -> None:
    swap(bundle, tuned(clip, seed=1))
    classifier, parity, vectors = verify_bundle(bundle, "cpu")
    assert parity.holds
    assert parity.images == 8
    assert np.isfinite(vectors)
    assert vectors <= VECTOR_BOUND
    assert len(classifier.classes) == 3


def test_any_changed_file_is_noticed(bundle: Path) -> None:
    (bundle / "tokenizer.json").write_bytes(b"{}")
    with pytest.raises(GraphError, match="was changed"):
        verify_bundle(bundle)
