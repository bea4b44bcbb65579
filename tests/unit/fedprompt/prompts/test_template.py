import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fedprompt.backbone.clip import FrozenClip
from fedprompt.backbone.encoded import Encoded
from fedprompt.errors import PromptError
from fedprompt.prompt_state import PromptState
from fedprompt.prompts.artefacts import from_artefact, to_artefact
from fedprompt.prompts.build import build_prompt
from fedprompt.prompts.methods import prompt_config
from fedprompt.prompts.template import ENSEMBLE_TEMPLATES, Template
from tests.conftest import CLASSES


def open_clip_vectors(clip: FrozenClip, template: str) -> torch.Tensor:
    """Return zero-shot class vectors computed by open_clip alone."""
    texts = [template.replace("{}", name) for name in CLASSES]
    return F.normalize(clip.model.encode_text(clip.tokenizer(texts)), dim=-1)


def test_one_template_is_zero_shot_clip_to_the_last_bit_but_one(clip: FrozenClip) -> None:
    found = Template(clip, CLASSES, "a photo of a {}.").class_vectors()
    expected = open_clip_vectors(clip, "a photo of a {}.")
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


def test_nothing_is_trained_and_nothing_travels(clip: FrozenClip) -> None:
    prompt = Template(clip, CLASSES, "a {}.")
    assert list(prompt.parameters()) == []
    assert not prompt.arrays()
    prompt.load_arrays(PromptState({}))
    with pytest.raises(PromptError, match=r"has no arrays, found \['ctx'\]"):
        prompt.load_arrays(PromptState({"ctx": np.zeros((4, 32), np.float32)}))
    with pytest.raises(PromptError, match="trains nothing"):
        prompt.backward(Encoded(torch.zeros(1, 24)), torch.zeros(1, dtype=torch.int64), None)


def test_the_rest_of_the_interface(clip: FrozenClip) -> None:
    prompt = Template(clip, CLASSES, "a {}.")
    assert torch.equal(prompt.fold().class_vectors, prompt.class_vectors(torch.Generator()))
    assert np.array_equal(prompt.frozen_arrays()["vectors"], prompt.fold().class_vectors.numpy())
    assert float(prompt.penalty()) == 0.0
    assert prompt.information_density() == 1.0
    assert prompt.describe() == {
        "method": "template",
        "host": "template",
        "form": "full",
        "rank": 0,
        "tokens": 0,
    }


def test_an_ensemble_is_the_mean_of_unit_vectors_made_a_unit_again(clip: FrozenClip) -> None:
    assert len(ENSEMBLE_TEMPLATES) == len(set(ENSEMBLE_TEMPLATES)) == 7
    prompt = build_prompt(prompt_config(method="ensemble"), clip, CLASSES, "unused {}")
    each = [open_clip_vectors(clip, template).numpy() for template in ENSEMBLE_TEMPLATES]
    mean = np.mean(each, axis=0)
    expected = mean / np.sqrt((mean**2).sum(1, keepdims=True))
    found = prompt.fold().class_vectors.numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert np.abs(found - each[0]).max() > 1e-3
    assert not prompt.arrays()
    assert prompt.describe()["method"] == "ensemble"


def test_an_ensemble_comes_back_from_its_artefact(clip: FrozenClip) -> None:
    prompt = build_prompt(prompt_config(method="ensemble"), clip, CLASSES, "a {}.")
    artefact = to_artefact(clip, prompt, CLASSES, "a {}.", round=0, seed=0)
    found = from_artefact(artefact, clip)
    assert torch.equal(found.fold().class_vectors, prompt.fold().class_vectors)
    assert found.describe() == prompt.describe()
