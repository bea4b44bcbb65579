"""A GPU whose memory is too small (F31): smaller steps, once; then a line that names the cure.

There is no GPU here, so the towers raise what torch raises on one, as often as a test says.
"""

import logging

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from client.features.encode import image_features
from client.tuning.evaluate import evaluate
from client.tuning.fit import fit
from fedprompt.backbone import class_encoder
from fedprompt.backbone.clip import FrozenClip
from fedprompt.backbone.encoded import EncodedImages
from fedprompt.cli import group
from fedprompt.data.folder import read_folder
from fedprompt.data.image_set import image_set
from fedprompt.errors import BackboneError
from fedprompt.prompts.build import build_prompt
from fedprompt.prompts.methods import prompt_config
from fedprompt.settings.fit import FitConfig
from tests import round_lines
from tests.pictures import image_folder

CLASSES = ("blue", "green", "red", "great grey owl", "maple tree")
SMALL = ("--set", "backbone.name=embedded-cnn")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDPROMPT_CACHE", str(tmp_path / "cache"))


class Memory:
    """Count the tower's calls; those that ask for too much fail as on a full GPU."""

    def __init__(self, original, fails):
        self.original, self.fails, self.sizes = original, fails, []

    def patch(self, monkeypatch, owner, name):
        memory = self

        def short(tower, rows, *arguments, **options):
            size = len(rows)
            memory.sizes.append(size)
            if memory.fails(size, len(memory.sizes)):
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return memory.original(tower, rows, *arguments, **options)

        monkeypatch.setattr(owner, name, short)


def images_short_of(monkeypatch, most):
    memory = Memory(FrozenClip.encode_image, lambda size, _: size > most)
    memory.patch(monkeypatch, FrozenClip, "encode_image")
    return memory


def photos_of(root, count=3):
    splits = read_folder(image_folder(root, CLASSES, count))
    return image_set(splits.classes, splits.train.labels, splits.train.source)


def test_F31_images_go_in_smaller_batches_until_they_fit(clip, tmp_path, monkeypatch):
    photos = photos_of(tmp_path / "photos")
    plain = image_features(photos, clip, None, 8)
    memory = images_short_of(monkeypatch, 2)
    found = image_features(photos, clip, None, 8)
    assert memory.sizes[:3] == [8, 4, 2]
    torch.testing.assert_close(found, plain, rtol=1e-5, atol=1e-6)  # other shapes round otherwise


def test_F31_one_image_too_many_is_a_clean_error(clip, tmp_path, monkeypatch):
    images_short_of(monkeypatch, 0)
    with pytest.raises(BackboneError, match=r"one image's activations.*backbone\.device = cpu"):
        image_features(photos_of(tmp_path / "photos"), clip, None, 8)


def test_F31_the_command_says_what_to_do(tmp_path, monkeypatch):
    images_short_of(monkeypatch, 0)
    photos = image_folder(tmp_path / "photos", CLASSES, 3)
    source = ("--set", f"data.source={photos}", "--output", str(tmp_path / "out"))
    done = CliRunner().invoke(group, ["train", *SMALL, *source])
    assert done.exit_code == 4
    assert "choose a smaller backbone, free the GPU" in done.stderr
    assert not list((tmp_path / "out").rglob("adapter_*"))


def text_short(monkeypatch, fails):
    """Make the text tower fail by its number of classes, or at its n-th call."""
    original = class_encoder.SharedPrefix._encode
    calls = []

    def short(self, tree, context):
        classes = len(tree.leaf_of)
        calls.append(classes)
        if fails(classes, len(calls)):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return original(self, tree, context)

    monkeypatch.setattr(class_encoder.SharedPrefix, "_encode", short)
    return calls


def tuned(clip, seed=3, **settings):
    """Tune one prompt and return its arrays, its loss and its score."""
    prompt = build_prompt(prompt_config(), clip, CLASSES, "a photo of a {}.")
    prompt.scale = 10.0
    torch.manual_seed(0)
    images = EncodedImages(torch.nn.functional.normalize(torch.randn(12, 24), dim=-1))
    labels = torch.arange(12) % len(CLASSES)
    config = FitConfig(batch=4, epochs=2, learning_rate=0.1, **settings)
    loss = fit(prompt, images, labels, config, seed)
    score = evaluate(prompt, images, labels)
    return prompt.arrays(), loss, score


def test_F31_a_training_step_is_repeated_with_half_the_classes(clip, monkeypatch, caplog):
    arrays, loss, score = tuned(clip)
    calls = text_short(monkeypatch, lambda classes, _: classes > 2)
    with caplog.at_level(logging.WARNING):
        found, found_loss, found_score = tuned(clip)
    assert calls[:4] == [5, 2, 2, 1]
    assert "half as much at a time" in caplog.text
    for name, array in arrays.items():  # the same dropout, the same order; rounding apart
        np.testing.assert_allclose(found[name], array, rtol=1e-3, atol=1e-5)
    assert found_loss == pytest.approx(loss, rel=1e-4)
    assert found_score.correct == score.correct


def test_F31_a_step_that_fails_once_only_changes_nothing_but_rounding(clip, monkeypatch):
    arrays, _, _ = tuned(clip)
    text_short(monkeypatch, lambda _, call: call == 3)
    found, _, _ = tuned(clip)
    for name, array in arrays.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-3, atol=1e-5)


def test_F31_the_second_failure_is_a_clean_error(clip, monkeypatch):
    calls = text_short(monkeypatch, lambda *_: True)
    with pytest.raises(BackboneError, match="half as much at a time either"):
        tuned(clip)
    assert len(calls) == 2  # once, and once again


def test_F31_it_reaches_the_server_as_a_verdict_and_the_round_goes_on(tmp_path, monkeypatch):
    photos = image_folder(tmp_path / "photos", CLASSES[:3], 12)
    rounds = []
    original = class_encoder.SharedPrefix._encode
    import client.app as app

    train = app.Site.train

    def train_short(site, *arguments, **options):
        """Fill the memory of site 1 while it trains."""
        rounds.append(site.number)
        if site.number == 1:
            text_short(monkeypatch, lambda *_: True)
        try:
            return train(site, *arguments, **options)
        finally:
            monkeypatch.setattr(class_encoder.SharedPrefix, "_encode", original)

    monkeypatch.setattr(app.Site, "train", train_short)
    settings = ("data.clients=3", f"data.source={photos}", "server.rounds=1")
    settings += ("data.partitioner=iid", "server.evaluate_every=0")
    sets = [part for setting in settings for part in ("--set", setting)]
    command = ["simulate", *SMALL, *sets, "--output", str(tmp_path / "out")]
    done = CliRunner().invoke(group, command)
    assert done.exit_code == 0, done.output
    line = round_lines.read(tmp_path / "out")[-1]
    assert line["accepted"] == [0, 2]
    (verdict,) = line["verdicts"]
    assert (verdict["site"], verdict["reasons"]) == (1, ["error"])
    assert "memory does not hold" in verdict["detail"]
