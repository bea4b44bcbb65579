import dataclasses
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from client.features import encode as module
from client.features.encode import ComputedRows, image_features, image_rows, read_pixels, store_key
from client.features.feature_store import FeatureStore
from fedprompt.backbone.clip import FrozenClip
from fedprompt.data.decode import decode
from fedprompt.data.folder import read_folder
from fedprompt.data.image_set import ImageSet, image_set
from fedprompt.data.preprocess import Preprocessing, fit_to_input
from fedprompt.errors import DataError
from tests.conftest import tiny_clip
from tests.pictures import image_folder


class Memory:
    """Hold images in memory, and count how often each is encoded."""

    def __init__(self, contents: list[bytes]) -> None:
        self.contents = contents

    def content(self, index: int) -> bytes:
        return self.contents[index]

    def name(self, index: int) -> str:
        return str(index)


def ppm(seed: int, size: tuple[int, int] = (40, 36)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return b"P6 %d %d 255\n" % (size[1], size[0]) + pixels.tobytes()


def images(*seeds: int) -> ImageSet:
    return image_set(("cat", "dog"), [seed % 2 for seed in seeds], Memory([ppm(s) for s in seeds]))


class Counter:
    """Count the images that pass through the tower."""

    def __init__(self, clip: FrozenClip, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls, self.images, encode = 0, 0, type(clip).encode_image

        def counted(model: FrozenClip, batch: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            self.images += int((batch != model.normalise(ZERO)).flatten(1).any(1).sum())
            return encode(model, batch)

        monkeypatch.setattr(type(clip), "encode_image", counted)


ZERO = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)  # a short batch is filled up with these


@pytest.fixture
def store(clip: FrozenClip) -> FeatureStore:
    return FeatureStore(store_key(clip))


def test_features_are_open_clips_made_unit(clip: FrozenClip) -> None:
    found = image_features(images(1, 2, 3), clip, None, batch=2)
    pixels = np.stack([fit_to_input(decode(ppm(s)), clip.preprocessing) for s in (1, 2, 3)])
    expected = clip.model.encode_image(clip.normalise(torch.from_numpy(pixels)), normalize=True)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert not found.requires_grad


def test_preprocessing_is_the_one_of_open_clips_transform(clip: FrozenClip) -> None:
    pre = clip.preprocessing
    transform = open_clip.image_transform(32, is_train=False, mean=pre.mean, std=pre.std)
    batch = transform(Image.fromarray(decode(ppm(5)))).unsqueeze(0)
    expected = clip.model.encode_image(batch, normalize=True)
    torch.testing.assert_close(
        image_features(images(5), clip, None, 4), expected, rtol=1e-4, atol=1e-5
    )


def test_no_image_is_ever_encoded_twice(
    clip: FrozenClip, store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = Counter(clip, monkeypatch)
    first = image_features(images(1, 2, 3), clip, store, 2)
    assert counter.images == 3
    again = image_features(images(3, 1, 2, 1), clip, FeatureStore(store_key(clip)), 2)
    assert counter.images == 3
    assert torch.equal(again, first[[2, 0, 1, 0]])
    image_features(images(1, 4), clip, store, 2)
    assert counter.images == 4


def test_copies_in_one_set_are_encoded_once(
    clip: FrozenClip, store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = Counter(clip, monkeypatch)
    found = image_features(images(1, 1, 2, 1), clip, store, 4)
    assert (counter.images, counter.calls) == (2, 1)
    assert torch.equal(found[0], found[3])


def test_a_changed_file_is_encoded_anew(
    clip: FrozenClip, store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = images(1, 2)
    before = image_features(given, clip, store, 2)
    counter = Counter(clip, monkeypatch)
    given.source.contents[1] = ppm(9)
    after = image_features(given, clip, store, 2)
    assert counter.images == 1
    assert torch.equal(after[0], before[0])
    assert torch.equal(after[1:], image_features(images(9), clip, None, 2))


def test_without_a_store_every_image_is_encoded(
    clip: FrozenClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = Counter(clip, monkeypatch)
    for _ in range(2):
        image_features(images(1, 2), clip, None, 2)
    assert counter.images == 4


def test_backbones_and_preprocessings_are_never_mixed(clip: FrozenClip) -> None:
    other = tiny_clip(seed=1)
    assert store_key(other) != store_key(clip)
    mine = image_features(images(1), clip, FeatureStore(store_key(clip)), 1)
    theirs = image_features(images(1), other, FeatureStore(store_key(other)), 1)
    assert not torch.equal(mine, theirs)
    squashed = tiny_clip()
    assert store_key(squashed) == store_key(clip)
    squashed.preprocessing = dataclasses.replace(clip.preprocessing, resize_mode="squash")
    assert store_key(squashed) != store_key(clip)
    assert store_key(clip, white_level=4095) != store_key(clip)


def test_an_empty_set_has_no_features(clip: FrozenClip, store: FeatureStore) -> None:
    for one in (store, None):
        assert len(image_features(images(1).subset([]), clip, one, 4)) == 0


def test_an_image_does_not_depend_on_its_neighbours(clip: FrozenClip) -> None:
    """Bit for bit, wherever it stands in a batch: or a run would depend on the partition."""
    together = image_features(images(*range(11)), clip, None, 8)
    for seed in (0, 3, 7, 8, 10):
        assert torch.equal(image_features(images(seed), clip, None, 8)[0], together[seed])
        turned = image_features(images(*range(seed, 11), *range(seed)), clip, None, 8)
        assert torch.equal(turned[0], together[seed])


def test_f31_out_of_memory_halves_the_batch(
    clip: FrozenClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = image_features(images(*range(6)), clip, None, 8)
    encode, sizes = type(clip).encode_image, []

    def small(model: FrozenClip, batch: torch.Tensor) -> torch.Tensor:
        sizes.append(len(batch))
        if len(batch) > 2:
            raise torch.OutOfMemoryError("no memory")
        return encode(model, batch)

    monkeypatch.setattr(type(clip), "encode_image", small)
    found = image_features(images(*range(6)), clip, None, 8)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert sizes == [8, 4, 2, 2, 2]


def test_images_are_refused_above_the_size_that_the_data_allow(clip: FrozenClip) -> None:
    assert len(image_features(images(1), clip, None, 1, max_pixels=40 * 36)) == 1
    with pytest.raises(DataError):
        image_features(images(1), clip, None, 1, max_pixels=40 * 36 - 1)


SHAPE = (32, 32, 3)  # as the tower takes them: nothing is resized


def exact(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, SHAPE, dtype=np.uint8)


def test_chosen_images_come_in_the_order_asked_pixel_for_pixel() -> None:
    contents = [b"P6 32 32 255\n" + exact(seed).tobytes() for seed in range(4)]
    photos = image_set(("cat", "dog"), [0, 1, 0, 1], Memory(contents))
    found = read_pixels(photos, [3, 0, 3], Preprocessing(size=32), 32 * 32)
    assert np.array_equal(found.numpy(), np.stack([exact(3), exact(0), exact(3)]))


def test_every_size_is_brought_to_the_towers(clip: FrozenClip) -> None:
    found = read_pixels(images(1, 2), [0, 1], clip.preprocessing, 10**6)
    assert tuple(found.shape) == (2, *SHAPE)


def test_an_image_of_too_many_pixels_is_refused(clip: FrozenClip) -> None:
    with pytest.raises(DataError):
        read_pixels(images(1), [0], clip.preprocessing, 40 * 36 - 1)


LIMIT = 10**6


@pytest.fixture
def photos(tmp_path: Path) -> ImageSet:
    splits = read_folder(image_folder(tmp_path / "photos", ("cat", "dog"), 4))
    return image_set(splits.classes, splits.train.labels, splits.train.source)


def by_hand(photos: ImageSet, clip: FrozenClip, layer: int) -> torch.Tensor:
    pixels = [
        fit_to_input(decode(photos.content(i)), clip.preprocessing) for i in range(len(photos))
    ]
    images = clip.normalise(torch.from_numpy(np.stack(pixels)))
    seen: list[torch.Tensor] = []
    block = clip.model.visual.transformer.resblocks[layer]
    hook = block.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    clip.model.encode_image(images)
    hook.remove()
    return seen[0]


@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("kept", [True, False])
def test_rows_are_what_enters_the_block(
    photos: ImageSet, clip: FrozenClip, layer: int, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not kept:
        monkeypatch.setattr(module, "KEPT_BYTES", 1000)
    rows = image_rows(photos, clip, layer, 3, max_pixels=LIMIT)
    assert isinstance(rows, torch.Tensor) is kept
    assert isinstance(rows, ComputedRows) is not kept
    chosen = torch.tensor([5, 0, 2])
    expected = by_hand(photos, clip, layer)[chosen]
    torch.testing.assert_close(rows[chosen], expected, rtol=1e-4, atol=1e-5)
    assert not rows[chosen].requires_grad


def test_a_site_without_images_has_no_rows(photos: ImageSet, clip: FrozenClip) -> None:
    rows = image_rows(photos.subset([]), clip, 0, 3, max_pixels=LIMIT)
    assert rows[torch.zeros(0, dtype=torch.int64)].shape == (0, 1, 48)
