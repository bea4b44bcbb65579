import numpy as np
import pytest
import torch

from client.features import patch_token_centroids as module
from client.features.patch_token_centroids import noised_centres, usual_norms
from fedprompt.backbone.clip import FrozenClip
from fedprompt.backbone.patch_tokens import patch_tokens
from fedprompt.clusters import LARGEST
from fedprompt.data.decode import decode
from fedprompt.data.preprocess import fit_to_input
from tests.unit.client.features.test_encode import images, ppm

SEEDS = tuple(range(6))
ASKED = {"most": 10, "noise": 0.0, "seed": 0, "secret": b"a", "max_pixels": 10**6}


def asked(clip: FrozenClip, *seeds: int, length: int = 4, **changes: object) -> np.ndarray:
    return noised_centres(images(*seeds), clip, range(3), length, **{**ASKED, **changes})


def tokens(clip: FrozenClip, layer: int) -> np.ndarray:
    pixels = np.stack([fit_to_input(decode(ppm(s)), clip.preprocessing) for s in SEEDS])
    found = next(patch_tokens(clip, torch.from_numpy(pixels), range(layer, layer + 1)))
    return found.numpy().reshape(-1, 48)


def test_without_noise_they_are_cut_means_of_the_tokens_next_to_them(
    clip: FrozenClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LARGEST", 1e6)
    whole = asked(clip, *SEEDS)
    for layer, found in enumerate(whole):
        points = tokens(clip, layer)
        nearest = ((points[:, None] - found) ** 2).sum(-1).argmin(1)
        means = np.stack([points[nearest == i].mean(0) for i in range(4)])
        assert np.abs(means - found).max() < 0.05 * np.abs(points).max()
    monkeypatch.setattr(module, "LARGEST", 0.5)
    norms = usual_norms(clip, range(3))
    for long, short, usual in zip(whole, asked(clip, *SEEDS), norms, strict=True):
        lengths = np.linalg.norm(long, axis=-1, keepdims=True)
        expected = long * np.minimum(1, 0.5 * usual / lengths)
        np.testing.assert_allclose(short, expected, rtol=2e-3, atol=2e-3)


def test_the_usual_norm_is_the_median_over_coloured_blocks(clip: FrozenClip) -> None:
    generator = torch.Generator().manual_seed(0)
    blocks = torch.randint(0, 256, (8, 8, 8, 3), generator=generator, dtype=torch.uint8)
    pixels = blocks.repeat_interleave(4, 1).repeat_interleave(4, 2)
    expected = [t.norm(dim=-1).median() for t in patch_tokens(clip, pixels, range(3))]
    np.testing.assert_allclose(usual_norms(clip, range(3)), expected, rtol=1e-3)


def test_noise_has_the_deviation_of_its_layer(clip: FrozenClip) -> None:
    calm, noised = asked(clip, *SEEDS, length=50), asked(clip, *SEEDS, length=50, noise=0.2)
    for before, after, usual in zip(calm, noised, usual_norms(clip, range(3)), strict=True):
        assert (after - before).std() == pytest.approx(0.2 * usual, rel=0.06)
        assert (after - before).mean() == pytest.approx(0, abs=0.02 * usual)
        assert np.linalg.norm(before, axis=-1).max() <= LARGEST * usual * 1.001


def test_the_same_question_has_the_same_answer_and_another_site_another(clip: FrozenClip) -> None:
    def digest(**changes: object) -> bytes:
        return asked(clip, *SEEDS, noise=0.1, **changes).tobytes()

    assert digest() == digest()
    assert digest(secret=b"b") != digest()
    calm = asked(clip, *SEEDS)
    noise = asked(clip, *SEEDS, noise=0.1) - calm
    other = asked(clip, *SEEDS, noise=0.1, secret=b"b") - calm
    assert abs(np.corrcoef(noise.ravel(), other.ravel())[0, 1]) < 0.15


def test_some_images_are_used_and_one_is_enough(clip: FrozenClip) -> None:
    assert asked(clip, 1, length=40).shape == (3, 40, 48)  # of 16 patches
    few = asked(clip, *SEEDS, most=2)
    assert not np.array_equal(few, asked(clip, *SEEDS))
