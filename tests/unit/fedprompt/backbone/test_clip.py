import open_clip
import pytest
import torch
from PIL import Image

from fedprompt.backbone.clip import FrozenClip
from fedprompt.data.preprocess import Preprocessing
from fedprompt.errors import BackboneError
from tests.conftest import tiny_clip, tiny_model


def test_it_is_frozen_and_stays_in_eval_mode(clip: FrozenClip) -> None:
    assert not any(parameter.requires_grad for parameter in clip.parameters())
    assert clip.train() is clip
    torch.nn.Sequential(clip).train()
    assert not any(module.training for module in clip.modules())


def test_a_model_in_training_mode_is_put_right() -> None:
    model = tiny_model().train()
    clip = FrozenClip(model, open_clip.get_tokenizer("ViT-B-32"), Preprocessing(size=32))
    assert not any(module.training for module in clip.modules())


def test_scale_and_bias_are_the_models() -> None:
    clip = tiny_clip()
    assert clip.logit_scale == pytest.approx(1 / 0.07, rel=1e-6)
    assert clip.logit_bias == 0.0
    assert clip.device == torch.device("cpu")


def test_a_bias_as_siglip_has_it() -> None:
    model = tiny_model()
    model.logit_bias = torch.nn.Parameter(torch.tensor(-10.0))
    clip = FrozenClip(model, open_clip.get_tokenizer("ViT-B-32"), Preprocessing(size=32))
    assert clip.logit_bias == -10.0


def test_pixels_are_normalised_as_open_clip_does(clip: FrozenClip) -> None:
    pixels = torch.arange(2 * 32 * 32 * 3, dtype=torch.int64).remainder(256).to(torch.uint8)
    pixels = pixels.reshape(2, 32, 32, 3)
    pre = clip.preprocessing
    transform = open_clip.image_transform(32, is_train=False, mean=pre.mean, std=pre.std)
    expected = torch.stack([transform(Image.fromarray(one.numpy())) for one in pixels])
    torch.testing.assert_close(clip.normalise(pixels), expected, rtol=1e-6, atol=1e-6)


def test_tokens_are_open_clips(clip: FrozenClip) -> None:
    texts = ["a photo of a cat.", ""]
    assert torch.equal(clip.tokenize(texts), open_clip.tokenize(texts))


def words(count: int) -> str:
    return " ".join(["cat"] * count)


def test_what_open_clip_would_cut_in_silence_is_refused(clip: FrozenClip) -> None:
    assert len(clip.tokenize([words(74)])) == 1
    for count in (76, 77, 200):
        with pytest.raises(BackboneError, match="does not fit the 77 tokens"):
            clip.tokenize(["cat", words(count)])


def test_words_become_their_embeddings_without_start_and_end(clip: FrozenClip) -> None:
    ids = open_clip.tokenize(["a photo of a"])[0, 1:5]
    found = clip.embed_words("a photo of a")
    assert torch.equal(found, clip.model.token_embedding.weight[ids])
    assert not found.requires_grad
    found += 1  # a copy: the tower is not harmed
    assert torch.equal(clip.embed_words("a photo of a") + 1, found)


def test_the_first_word_stands_behind_the_start_token(clip: FrozenClip) -> None:
    assert clip.first_word == 1


def test_without_a_start_token_the_first_word_comes_first() -> None:
    clip = tiny_clip()
    clip.tokenizer = lambda texts: torch.tensor(
        [[ord(text[i]) if i < len(text) else 1 for i in range(16)] for text in texts]
    )
    assert clip.first_word == 0
