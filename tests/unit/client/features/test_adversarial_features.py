import numpy as np
import pytest
import torch
from torch.nn import functional as F

from client.features import adversarial_features as bank
from client.features.encode import encode, image_features, store_key
from client.features.feature_store import FeatureStore
from fedprompt.backbone.clip import FrozenClip
from fedprompt.data.decode import decode
from fedprompt.data.preprocess import fit_to_input
from tests.unit.client.features.test_encode import images, ppm


def by_hand(clip: FrozenClip, seed: int) -> torch.Tensor:
    """Return the feature of one attacked image, AdvPT's loop written out."""
    content = ppm(seed)
    pixels = torch.from_numpy(fit_to_input(decode(content), clip.preprocessing))
    clean = (pixels.permute(2, 0, 1).float() / 255).unsqueeze(0)
    mean, std = (
        torch.tensor(v)[:, None, None] for v in (clip.preprocessing.mean, clip.preprocessing.std)
    )
    before = F.softmax(clip.model.encode_image((clean - mean) / std), -1)
    digest = images(seed).digest(0)
    generator = torch.Generator().manual_seed(int(digest[:15], 16))
    delta = torch.rand(3, 32, 32, generator=generator).unsqueeze(0) * 8 / 255
    delta = (clean + delta).clamp(0, 1) - clean
    for _ in range(10):
        delta.requires_grad_()
        after = F.log_softmax(clip.model.encode_image((clean + delta - mean) / std), -1)
        loss = F.kl_div(after, before, reduction="batchmean")
        (slope,) = torch.autograd.grad(loss, delta)
        delta = (delta.detach() + slope.sign() / 255).clamp(-8 / 255, 8 / 255)
        delta = (clean + delta).clamp(0, 1) - clean
    with torch.no_grad():
        return clip.model.encode_image((clean + delta - mean) / std, normalize=True)[0]


def test_the_bank_holds_the_features_of_attacked_images(clip: FrozenClip) -> None:
    """The signs of small slopes may round otherwise, so cosines are compared, and the gain."""
    clean = image_features(images(1, 2, 3), clip, None, 2)
    found = image_features(images(1, 2, 3), clip, None, 2, bank="adversarial")
    for row, seed in zip(found, (1, 2, 3), strict=True):
        assert float(row @ by_hand(clip, seed)) > 0.999
    assert float((clean * found).sum(-1).max()) < 0.98  # and clean ones are elsewhere
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(3))


def test_an_attack_does_not_depend_on_neighbours(clip: FrozenClip) -> None:
    together = image_features(images(*range(5)), clip, None, 4, bank="adversarial")
    for seed in (0, 4):
        alone = image_features(images(seed), clip, None, 4, bank="adversarial")
        assert torch.equal(alone[0], together[seed])


def test_a_bank_is_built_once_and_kept_apart(
    clip: FrozenClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    attacks = []
    original = bank.pgd

    def counted(clean: torch.Tensor, *rest: object, **numbers: float) -> torch.Tensor:
        attacks.append(len(clean))
        return original(clean, *rest, **numbers)

    monkeypatch.setattr(bank, "pgd", counted)
    key = store_key(clip, "adversarial")
    assert key != store_key(clip) == store_key(clip, "clean")
    plain = image_features(images(1, 2), clip, FeatureStore(store_key(clip)), 2)
    assert not attacks
    first = encode(images(1, 2), clip, FeatureStore(key), 2, None, bank="adversarial")
    assert attacks == [2]
    again = encode(images(2, 1), clip, FeatureStore(key), 2, None, bank="adversarial")
    assert attacks == [2]
    assert torch.equal(again.features, first.features[[1, 0]])
    assert torch.equal(image_features(images(1, 2), clip, FeatureStore(store_key(clip)), 2), plain)


def test_another_attack_has_another_key(clip: FrozenClip, monkeypatch: pytest.MonkeyPatch) -> None:
    key = store_key(clip, "adversarial")
    monkeypatch.setattr(
        bank, "TRAINING", bank.TRAINING.__class__(radius=4 / 255, step=1 / 255, steps=10)
    )
    assert store_key(clip, "adversarial") != key


def test_a_prompt_of_the_image_tower_gets_no_clean_rows(clip: FrozenClip) -> None:
    found = encode(images(1, 2), clip, None, 2, 0, bank="adversarial")
    assert found.rows is None
    assert np.isfinite(found.features.numpy()).all()
