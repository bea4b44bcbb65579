import pytest
import torch

from fedprompt.backbone.clip import FrozenClip
from tests.unit.fedprompt.prompts.hosts import LABELS, encoded, moved
from tests.unit.fedprompt.prompts.objectives.plain import check, cross_entropy, tuned


@pytest.mark.parametrize("config", [{"method": "coop"}, {"method": "ivlp", "form": "lowrank"}])
@pytest.mark.parametrize("precision", ["clip", "clip64"])
def test_it_is_the_plain_loss_of_cosine_logits(
    request: pytest.FixtureRequest, precision: str, config: dict
) -> None:
    clip: FrozenClip = request.getfixturevalue(precision)
    prompt = moved(clip, **config)
    features, vectors = tuned(clip, prompt)
    loss = cross_entropy(clip.logit_scale * features @ vectors.T)
    wanted = torch.autograd.grad(loss, list(prompt.parameters()))
    check(prompt, prompt.backward(encoded(clip, prompt), LABELS, None), loss, list(wanted))


def test_gradients_are_added_to_those_that_are_there(clip: FrozenClip) -> None:
    prompt = moved(clip, method="coop")
    (parameter,) = prompt.parameters()
    images = encoded(clip, prompt)
    prompt.backward(images, LABELS, None)
    once = parameter.grad.clone()
    prompt.backward(images, LABELS, None)
    torch.testing.assert_close(parameter.grad, 2 * once)


def test_dropout_is_drawn_where_a_generator_is_given(clip: FrozenClip) -> None:
    prompt = moved(clip, method="dip", dropout=0.5)
    images = encoded(clip, prompt)

    def loss(generator: torch.Generator | None) -> float:
        return prompt.backward(images, LABELS, generator)

    drawn = [loss(torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert loss(None) == loss(None) not in drawn
