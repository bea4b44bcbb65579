from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from export.fold.constants import Constants
from export.parity.reference import reference_logits


def test_the_reference_is_open_clip_s_own_forward(
    tiny_clip: Any, images: npt.NDArray[np.uint8]
) -> None:
    clip = tiny_clip(bias=-3.0)
    tokens = clip.tokenize(["a cat", "a dog"])
    with torch.no_grad():
        pixels = clip.normalise(torch.from_numpy(images))
        expected, _ = clip.model.get_logits(pixels, tokens)
        vectors = clip.model.encode_text(tokens, normalize=True).numpy()
    found = reference_logits(
        clip, Constants(class_vectors=vectors), np.concatenate([images] * 5)
    )  # above one batch
    np.testing.assert_allclose(found[: len(images)], expected.numpy(), atol=1e-5)
    np.testing.assert_allclose(found[-len(images) :], found[: len(images)], atol=1e-5)
