import pytest
import torch

from client.features.oom_retry import retry_smaller
from fedprompt.backbone.clip import FrozenClip
from fedprompt.errors import BackboneError
from fedprompt.prompts.build import Prompt, build_prompt
from fedprompt.prompts.methods import prompt_config

CLASSES = ("cat", "dog", "owl", "tench")


@pytest.fixture
def prompt(clip: FrozenClip) -> Prompt:
    return build_prompt(prompt_config(), clip, CLASSES, "a photo of a {}.")


def failing(times: int, drawn: list[float], generator: torch.Generator):
    """Return a computation that draws a number and runs out of memory at first."""

    def compute() -> float:
        drawn.append(float(torch.rand(1, generator=generator)))
        if len(drawn) <= times:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return drawn[-1]

    return compute


def test_the_second_try_draws_the_same_numbers(prompt: Prompt) -> None:
    generator, drawn = torch.Generator().manual_seed(1), list[float]()
    found = retry_smaller(prompt, failing(1, drawn, generator), generator)
    assert drawn == [found, found]


def test_there_is_no_third_try(prompt: Prompt) -> None:
    generator, drawn = torch.Generator().manual_seed(1), list[float]()
    with pytest.raises(BackboneError, match="half as much at a time either"):
        retry_smaller(prompt, failing(9, drawn, generator), generator)
    assert len(drawn) == 2


def test_one_class_at_a_time_is_the_end(prompt: Prompt) -> None:
    assert [prompt.halve_chunk() for _ in range(4)] == [True, True, False, False]
    generator, drawn = torch.Generator().manual_seed(1), list[float]()
    with pytest.raises(BackboneError):
        retry_smaller(prompt, failing(1, drawn, generator), generator)
    assert len(drawn) == 1


def test_smaller_chunks_give_the_same_vectors_and_gradients(prompt: Prompt) -> None:
    found = []
    for _ in range(3):
        prompt.zero_grad()
        vectors = prompt.class_vectors()
        vectors[:, 0].sum().backward()
        gradients = [tensor.grad.clone() for tensor in prompt.parameters()]
        found.append([vectors.detach(), *gradients])
        prompt.halve_chunk()
    for other in found[1:]:
        for mine, first in zip(other, found[0], strict=True):
            torch.testing.assert_close(mine, first, rtol=1e-4, atol=1e-6)  # rounding only
