import pytest
import torch
from torch.nn import functional as F

from client.tuning.evaluate import Score, evaluate, predict
from fedprompt.backbone.clip import FrozenClip
from fedprompt.backbone.encoded import EncodedImages
from fedprompt.prompts.template import Template
from tests.conftest import CLASSES


@pytest.fixture
def prompt(clip: FrozenClip) -> Template:
    made = Template(clip, [*CLASSES[:2], *CLASSES[4:]], "a photo of a {}.")
    made.scale = 50.0
    return made


def features(count: int = 20) -> torch.Tensor:
    return F.normalize(torch.randn(count, 24, generator=torch.Generator().manual_seed(0)), dim=-1)


def images(count: int = 20) -> EncodedImages:
    return EncodedImages(features(count))


def test_logits_are_the_scaled_cosines(prompt: Template) -> None:
    prompt.scale = 7.0
    found = predict(prompt, images())
    expected = torch.tensor(
        [[7 * float(x @ v) for v in prompt.class_vectors()] for x in features()]
    )
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_score_counts_hits_and_averages_the_loss(prompt: Template) -> None:
    logits = predict(prompt, images())
    labels = logits.argmax(-1)
    labels[:5] = (labels[:5] + 1) % 4
    found = evaluate(prompt, images(), labels)
    losses = [-float(row.log_softmax(-1)[label]) for row, label in zip(logits, labels, strict=True)]
    assert (found.count, found.correct) == (20, 15)
    assert found.loss == pytest.approx(sum(losses) / 20, rel=1e-5)


def test_vectors_themselves_are_all_hits(prompt: Template) -> None:
    found = evaluate(prompt, EncodedImages(prompt.class_vectors()), torch.arange(4))
    assert found.correct == 4


def test_without_images_everything_is_zero(prompt: Template) -> None:
    empty = EncodedImages(torch.zeros(0, 24)), torch.zeros(0, dtype=torch.int64)
    assert evaluate(prompt, *empty) == Score(count=0, correct=0, loss=0.0)
