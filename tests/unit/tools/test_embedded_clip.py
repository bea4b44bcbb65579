"""The recipe's own arithmetic: towers equal open_clip's, views match their words, no leak."""

import json
import random
from pathlib import Path

import pytest
import torch

pytest.importorskip("timm")

from tools.embedded_clip import captions, initial, prototypes, towers, train_image, words
from tools.embedded_clip.data import class_names
from tools.embedded_clip.transforms import GROUPS, apply_codes, draw_codes, random_crop

MEMBERS = [(g, n) for g, members in enumerate(GROUPS) for n in range(1, len(members) + 1)]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return towers.build().eval()


def test_quick_text_tower_is_open_clips(model) -> None:
    texts = ["a photo of a cat.", "dog", "a dark photo of the rocking chair"]
    with torch.inference_mode():
        expected = model.encode_text(towers.TOKENIZER(texts))
        torch.testing.assert_close(towers.text_vectors(model, texts), expected)


def test_quick_image_tower_is_open_clips(model) -> None:
    images = torch.randn(2, 3, 64, 64, generator=seeded())
    with torch.inference_mode():
        hidden = train_image.image_hidden(model.visual, images)
        torch.testing.assert_close(hidden @ model.visual.proj, model.encode_image(images))


def test_start_keeps_the_tower_finite(model) -> None:
    pixels = torch.randint(0, 256, (40, 3, 64, 64), generator=seeded(), dtype=torch.uint8)
    tower = towers.build().visual
    initial.start(tower, pixels)
    assert torch.isfinite(tower(initial.normalised(pixels[:2]))).all()


@pytest.mark.parametrize(("group", "number"), MEMBERS)
def test_each_transform_changes_only_what_is_coded(group: int, number: int) -> None:
    images = 255 * torch.rand(2, 3, 64, 64, generator=seeded())
    codes = torch.zeros(2, len(GROUPS), dtype=torch.long)
    codes[1, group] = number
    views = apply_codes(images, codes, seeded())
    assert views.shape == images.shape
    assert torch.equal(views[0], images[0])
    assert (views[1] - images[1]).abs().mean() > 1


def test_views_repeat_at_a_seed() -> None:
    images = 255 * torch.rand(4, 3, 64, 64, generator=seeded())
    assert torch.equal(random_crop(images, seeded(3)), random_crop(images, seeded(3)))
    assert torch.equal(draw_codes(50, seeded(3)), draw_codes(50, seeded(3)))


def test_every_transform_has_words() -> None:
    for members in GROUPS:
        for name, _ in members:
            assert captions.BEFORE[name]
    draw = random.Random(0)  # noqa: S311 - captions are no secret
    said = {captions.caption("cat", [0, 1, 0, 1, 0], draw) for _ in range(40)}
    assert any(text.startswith("a") and "on black" in text for text in said)
    assert all("cat" in text for text in said)


def test_class_means_follow_from_classifier_rows() -> None:
    torch.manual_seed(0)
    labels = torch.arange(4).repeat_interleave(4000)
    centres, mix = 3 * torch.randn(6, 5), torch.eye(5) + 0.2 * torch.randn(5, 5)
    features = centres[labels] + torch.randn(len(labels), 5) @ mix
    rows = (centres - centres[:4].mean(dim=0)) @ torch.linalg.inv(mix.T @ mix)
    means = prototypes.means_from_rows(features, labels, rows, torch.arange(4))
    torch.testing.assert_close(means[4:], centres[4:], rtol=0.1, atol=0.3)


def test_unseen_classes_are_hidden(tmp_path: Path) -> None:
    every = words.nouns()
    ids = [noun.wnid for noun in every[:200]]
    names = {noun.wnid: ", ".join(noun.lemmas) for noun in every[:200]}
    (tmp_path / "tiny-imagenet-classes.json").write_text(json.dumps(names))
    assert list(class_names(tmp_path)) == ids
    assert all(words.hidden(noun, tmp_path) for noun in every[150:200])
    assert not words.hidden(every[5_000], tmp_path)
