import pytest
import torch

from fedprompt.backbone.clip import FrozenClip
from fedprompt.errors import PromptError
from fedprompt.prompts.artefacts import from_artefact, to_artefact
from tests.unit.fedprompt.prompts.heads import images, make, moved
from tests.unit.fedprompt.prompts.hosts import NAMES, TEMPLATE

HEADS = ("linear", "fedclip", "cocoop")


@pytest.mark.parametrize("method", HEADS)
def test_a_head_says_whose_it_is(clip: FrozenClip, method: str) -> None:
    both = make(clip, method=method, personal="both", local_share=0.25)
    own = {"personal": "both", "local_share": 0.25}
    assert both.describe() == make(clip, method=method).describe() | own


@pytest.mark.parametrize("method", ["fedclip", "cocoop"])
def test_what_is_no_probe_serves_other_classes(clip: FrozenClip, method: str) -> None:
    prompt, batch = moved(clip, method=method), images(clip)
    artefact = to_artefact(clip, prompt, NAMES, TEMPLATE, round=1, seed=0)
    artefact.metadata["classes"] = list(NAMES[1:3])
    found = from_artefact(artefact, clip)
    expected = prompt(batch).logits[:, 1:3]
    torch.testing.assert_close(found(batch).logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", HEADS)
def test_dropout_acts_in_training_alone(clip: FrozenClip, method: str) -> None:
    prompt, batch = moved(clip, method=method, form="lowrank", dropout=0.5), images(clip)
    draw = lambda seed: prompt(batch, torch.Generator().manual_seed(seed)).logits  # noqa: E731
    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))
    assert torch.equal(prompt(batch).logits, prompt(batch).logits)


@pytest.mark.parametrize("method", ["linear", "fedclip"])
def test_heads_without_a_prompt_refuse_its_loss_terms(clip: FrozenClip, method: str) -> None:
    for term in ("density_weight", "tail_weight"):
        with pytest.raises(PromptError, match=f"prompt.method = {method} has none; set both to 0"):
            make(clip, method=method, **{term: 0.1})
    prompt = moved(clip, method=method)
    assert float(prompt.penalty().detach()) == 0.0
    assert 0 < prompt.information_density() <= 1
    assert not prompt.halve_chunk()
