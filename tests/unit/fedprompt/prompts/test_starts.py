import pytest
import torch

from fedprompt.backbone.clip import FrozenClip
from fedprompt.errors import PromptError
from fedprompt.prompts.config import PromptConfig
from fedprompt.prompts.forms import form_maker
from fedprompt.prompts.host import Material
from fedprompt.prompts.starts import depth_of, drawn_visuals, text_start


def material(
    clip: FrozenClip, seed: int = 0, template: str = "a photo of a {}.", **config: object
) -> Material:
    generator = torch.Generator().manual_seed(seed)
    return Material(
        clip=clip,
        config=PromptConfig(**config),
        template=template,
        form=form_maker("full", 1, 0.0, generator),
        generator=generator,
    )


def test_the_start_is_words_or_noise(clip: FrozenClip) -> None:
    def draw(seed: int, **config: object) -> torch.Tensor:
        return text_start(material(clip, seed, **config))

    assert torch.equal(draw(0), clip.embed_words("a photo of a"))  # the template's own
    assert torch.equal(draw(0, init="an X-ray of"), clip.embed_words("an X-ray of"))
    noise = draw(0, tokens=64, init="random")
    assert tuple(noise.shape) == (64, 32)
    assert noise.std().item() == pytest.approx(0.02, rel=0.1)
    assert torch.equal(noise, draw(0, tokens=64, init="random"))
    assert not torch.equal(noise, draw(1, tokens=64, init="random"))


@pytest.mark.parametrize(
    ("template", "config", "told"),
    [
        ("a photo of a {}.", {"tokens": 3}, "'a photo of a' are 4 tokens, prompt.tokens is 3"),
        ("{}, a pet.", {}, "'' are 0 tokens"),
        ("a {}.", {"init": "random"}, "random needs a length: set prompt.tokens"),
    ],
)
def test_a_start_without_a_length_or_of_another_is_refused(
    clip: FrozenClip, template: str, config: dict, told: str
) -> None:
    with pytest.raises(PromptError, match=told):
        text_start(material(clip, template=template, **config))


def test_every_block_of_the_image_tower_has_noise_of_its_own(clip: FrozenClip) -> None:
    found = drawn_visuals(material(clip), range(3), 40)
    assert [tuple(matrix.shape) for matrix in found] == [(40, 48)] * 3
    assert torch.stack(list(found)).std().item() == pytest.approx(0.02, rel=0.1)
    assert not torch.equal(found[0], found[1])


def test_the_depth_is_what_was_asked_or_as_much_of_the_usual_as_there_is(clip: FrozenClip) -> None:
    assert depth_of(material(clip, depth=2), usual=9, blocks=3) == 2
    assert depth_of(material(clip), usual=9, blocks=3) == 3
    assert depth_of(material(clip), usual=1, blocks=3) == 1
    with pytest.raises(PromptError, match="depth = 4, but only 3 blocks can be prompted"):
        depth_of(material(clip, depth=4), usual=1, blocks=3)
