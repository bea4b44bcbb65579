import pytest
import torch

from fedprompt.backbone.clip import FrozenClip
from fedprompt.errors import PromptError
from fedprompt.prompts.forms import form_maker
from fedprompt.prompts.host import Material
from fedprompt.prompts.methods import prompt_config
from fedprompt.prompts.starts import depth_of, drawn_visuals, text_start
from fedprompt.prompts.words import Layout
from fedprompt.settings.prompt import DeepConfig


def material(
    clip: FrozenClip, seed: int = 0, template: str = "a photo of a {}.", **config: object
) -> Material:
    generator = torch.Generator().manual_seed(seed)
    return Material(
        clip=clip,
        config=prompt_config(**config),
        template=template,
        form=form_maker("full", 1, 0.0),
        generator=generator,
        classes=3,
    )


def test_the_start_is_words_or_noise(clip: FrozenClip) -> None:
    def draw(seed: int, **config: object) -> torch.Tensor:
        start = text_start(material(clip, seed, **config))
        assert start.layout == Layout(len(start.matrix))
        return start.matrix

    assert torch.equal(draw(0), clip.embed_words("a photo of a"))  # the template's own
    assert torch.equal(draw(0, init="an X-ray of"), clip.embed_words("an X-ray of"))
    noise = draw(0, tokens=64, init="random")
    assert tuple(noise.shape) == (64, 32)
    assert noise.std().item() == pytest.approx(0.02, rel=0.1)
    assert torch.equal(noise, draw(0, tokens=64, init="random"))
    assert not torch.equal(noise, draw(1, tokens=64, init="random"))


@pytest.mark.parametrize(
    ("config", "length", "rest"),
    [
        ({"tokens": 2}, 2, "of a"),
        ({"tokens": 4}, 4, ""),
        ({"tokens": 1}, 1, "photo of a"),
        ({"init": "a photo", "tokens": 2}, 2, ""),
        ({"init": "a micrograph of  stained tissue,", "tokens": 4}, 4, "stained tissue,"),
    ],
)
def test_the_first_words_are_tuned_and_the_others_stay(
    clip: FrozenClip, config: dict, length: int, rest: str
) -> None:
    words = config.get("init", "a photo of a")
    start = text_start(material(clip, **config))
    assert start.layout == Layout(length, rest)
    assert torch.equal(start.matrix, clip.embed_words(words)[:length])


def test_a_tuned_part_that_ends_within_a_word_is_refused(clip: FrozenClip) -> None:
    assert len(clip.embed_words("a micrograph of")) == 4
    told = r"end behind tokens 1, 3, 4, prompt.tokens = 2 ends within one"
    with pytest.raises(PromptError, match=told):
        text_start(material(clip, init="a micrograph of", tokens=2))


def test_words_with_braces_are_refused(clip: FrozenClip) -> None:
    with pytest.raises(PromptError, match="holds braces"):
        text_start(material(clip, init="a {} of", tokens=1))


def test_each_class_starts_at_the_words_or_at_noise_of_its_own(clip: FrozenClip) -> None:
    words = text_start(material(clip, class_specific=True, tokens=2))
    assert words.layout == Layout(2, "of a", class_specific=True)
    assert torch.equal(words.matrix, clip.embed_words("a photo").repeat(3, 1))
    noise = text_start(material(clip, class_specific=True, init="random", tokens=2)).matrix
    assert noise.shape == (6, 32)
    assert len({tuple(row) for row in noise.tolist()}) == 6


@pytest.mark.parametrize(
    ("template", "config", "told"),
    [
        ("a photo of a {}.", {"tokens": 5}, "'a photo of a' are 4 tokens, prompt.tokens is 5"),
        ("{}, a pet.", {}, "'' are 0 tokens"),
        ("{}, a pet.", {"tokens": 2}, "'' are 0 tokens"),
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


def test_the_depth_is_what_was_asked_or_as_much_of_the_usual_as_there_is() -> None:
    assert depth_of(DeepConfig(depth=2), usual=9, blocks=3) == 2
    assert depth_of(DeepConfig(), usual=9, blocks=3) == 3
    assert depth_of(DeepConfig(), usual=1, blocks=3) == 1
    with pytest.raises(PromptError, match="depth = 4, but only 3 blocks can be prompted"):
        depth_of(DeepConfig(depth=4), usual=1, blocks=3)
