import numpy as np
import torch
from torch.nn.functional import conv2d

from export.graph.patch_embedding import fold_normalisation
from fedprompt.data.preprocess import Preprocessing


def test_normalisation_folds_into_the_kernel() -> None:
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal((6, 3, 4, 4)).astype(np.float32)
    pixels = rng.integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    pre = Preprocessing(size=4)
    mean, std = (torch.tensor(v, dtype=torch.float64) for v in (pre.mean, pre.std))
    normal = ((torch.from_numpy(pixels) / 255.0 - mean) / std).permute(0, 3, 1, 2)
    expected = conv2d(normal, torch.from_numpy(kernel).double())[:, :, 0, 0]
    weight, offset = fold_normalisation(kernel, pre)
    found = pixels.reshape(2, -1) @ weight + offset
    # weights are rounded to float32 once more: 2^-24 of sums of 48 terms of size 4
    np.testing.assert_allclose(found, expected.numpy(), atol=5e-6)
