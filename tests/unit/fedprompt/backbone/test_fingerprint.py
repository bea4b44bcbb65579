import open_clip
import pytest
import torch

from fedprompt.backbone.fingerprint import model_fingerprint, tokenizer_fingerprint
from tests.conftest import tiny_model

TOKENIZER = open_clip.get_tokenizer("ViT-B-32")
MINE = model_fingerprint(tiny_model())


def test_equal_models_have_equal_hashes() -> None:
    assert model_fingerprint(tiny_model()) == MINE
    assert len(MINE) == 64


def test_the_dtype_of_a_file_does_not_matter() -> None:
    model = tiny_model().half().float()
    assert model_fingerprint(model) == model_fingerprint(model.half())


def test_one_changed_weight_shows() -> None:
    model = tiny_model()
    with torch.no_grad():
        model.visual.proj[3, 5] += 1e-6
    assert model_fingerprint(model) != MINE


@pytest.mark.parametrize(
    "text", [{"heads": 2}, {"no_causal_mask": True}, {"pool_type": "last"}, {"layers": 2}]
)
def test_settings_that_lie_in_no_weight_show(text: dict) -> None:
    assert model_fingerprint(tiny_model(**text)) != MINE


def test_the_activation_shows() -> None:
    model = tiny_model()
    for module in model.modules():
        if hasattr(module, "gelu"):
            module.gelu = open_clip.transformer.QuickGELU()
    assert model_fingerprint(model) != MINE


def test_a_tokenizer_is_its_vocabulary_and_length() -> None:
    mine = tokenizer_fingerprint(TOKENIZER)
    assert mine == tokenizer_fingerprint(open_clip.get_tokenizer("ViT-B-16"))
    assert mine != tokenizer_fingerprint(open_clip.SimpleTokenizer(context_length=64))
    words = open_clip.SimpleTokenizer(additional_special_tokens=["<new>"])
    assert mine != tokenizer_fingerprint(words)


def test_how_text_is_cleaned_shows() -> None:
    other = open_clip.SimpleTokenizer(clean="whitespace")
    assert tokenizer_fingerprint(other) != tokenizer_fingerprint(TOKENIZER)
