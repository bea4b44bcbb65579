from pathlib import Path

import pytest
import torch

from fedprompt.artefact import Artefact
from fedprompt.backbone.clip import FrozenClip
from fedprompt.errors import ArtefactError
from fedprompt.prompts.artefacts import from_artefact, to_artefact
from fedprompt.prompts.build import Prompt, build_prompt
from fedprompt.prompts.methods import prompt_config
from tests.conftest import CLASSES, tiny_clip
from tests.prompts import stir

TEMPLATE = "a photo of a {}."


def trained(clip: FrozenClip, rule: str = "product", **config: object) -> Prompt:
    chosen = prompt_config(**config)
    prompt = build_prompt(chosen, clip, CLASSES, TEMPLATE, rule=rule)
    stir(prompt, spread=1.0)
    return prompt


def artefact_of(clip: FrozenClip, prompt: Prompt) -> Artefact:
    return to_artefact(clip, prompt, CLASSES, TEMPLATE, round=3, seed=0)


@pytest.mark.parametrize(
    "config",
    [{}, {"rank": 3}, {"method": "coop"}, {"method": "template"}, {"rule": "shared-basis"}],
)
def test_a_prompt_comes_back_from_disk_bit_for_bit(
    clip: FrozenClip, tmp_path: Path, config: dict
) -> None:
    prompt = trained(clip, **config)
    artefact_of(clip, prompt).save(tmp_path)
    found = from_artefact(Artefact.load(tmp_path), clip)
    assert found.describe() == prompt.describe()
    assert torch.equal(found.class_vectors(), prompt.class_vectors())
    assert found.arrays().keys() == prompt.arrays().keys()


def test_f12_another_backbone_is_refused_with_both_hashes(clip: FrozenClip) -> None:
    other = tiny_clip(seed=1)
    with pytest.raises(ArtefactError, match="tuned for backbone") as caught:
        from_artefact(artefact_of(clip, trained(clip)), other)
    assert clip.fingerprint[:16] in str(caught.value)
    assert other.fingerprint[:16] in str(caught.value)


@pytest.mark.parametrize("name", ["ctx.A", "ctx.B", "ctx.start"])
def test_a_tensor_that_is_missing_or_would_be_broadcast_is_refused(
    clip: FrozenClip, name: str
) -> None:
    artefact = artefact_of(clip, trained(clip))
    whole = artefact.tensors[name]
    del artefact.tensors[name]
    with pytest.raises(ArtefactError, match=f"{name} is missing, expected"):
        from_artefact(artefact, clip)
    artefact.tensors[name] = whole[:1, :1]
    with pytest.raises(ArtefactError, match=rf"{name} is of shape \(1, 1\), expected"):
        from_artefact(artefact, clip)
