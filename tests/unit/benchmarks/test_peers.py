import numpy as np
import pytest
import torch

from benchmarks import inference_speed, peers
from benchmarks.inference_speed import open_peers, texts, with_prompts
from export.parity.check import reference_logits
from fedprompt.data.fashion_mnist import CLASSES

pytestmark = pytest.mark.slow
PEERS = {
    "exported": lambda subject: peers.exported(subject.clip, subject.constants),
    "two_graphs": lambda subject: peers.two_graphs(subject.clip, subject.constants),
    "text_at_every_call": lambda s: peers.text_at_every_call(s.clip, texts(CLASSES)),
}


@pytest.mark.parametrize("name", PEERS)
def test_a_peers_graph_answers_as_torch_at_any_batch(name, subject):
    peer = PEERS[name](subject)
    images = subject.floats(subject.real.pictures)
    for batch in (1, 2, 4):
        found = peer(images[:batch])
        assert np.abs(found - subject.expected[:batch]).max() < 1e-4
        assert (found.argmax(1) == subject.expected[:batch].argmax(1)).all()


def test_eager_is_the_reference_with_and_without_prompts(subject):
    images = subject.floats(subject.real.pictures)
    for constants in (subject.constants, with_prompts(subject)):
        found = peers.eager(subject.clip, constants)(images)
        expected = reference_logits(subject.clip, constants, subject.real.pictures)
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_compiling_is_asked_for_frozen_weights(subject, monkeypatch):
    asked = {}
    monkeypatch.setattr(torch, "compile", lambda module, **options: asked.update(options) or module)
    images = subject.floats(subject.real.pictures)
    found = peers.compiled(subject.clip, subject.constants)(images)
    np.testing.assert_allclose(found, subject.expected, atol=1e-5)
    assert asked == {"dynamic": False, "options": {"freezing": True}}


def test_peers_that_fail_or_answer_otherwise_are_told(subject, monkeypatch):
    def broken(_):
        raise RuntimeError("no compiler\nhere")

    makers = {
        "eager": lambda s: peers.eager(s.clip, s.constants),
        "broken": broken,
        "wrong": lambda s: lambda images: np.zeros((len(images), len(CLASSES)), np.float32),
    }
    monkeypatch.setattr(inference_speed, "PEERS", makers)
    found, absent = open_peers(subject, makers)
    assert list(found) == ["eager"]
    assert absent["broken"] == "RuntimeError: no compiler here"
    assert "logits differ" in absent["wrong"]
