import numpy as np
import pytest

from benchmarks import inference_costs as costs
from benchmarks import peers
from benchmarks.inference_costs import _costs as told
from benchmarks.subject import Subject
from tests.conftest import tiny_clip


def test_costs_are_told_against_eager_and_against_the_least_value():
    times = {"eager_1": 4.0, "fp32_1": 2.0, "int8_1": 1.0}
    times |= {"eager_8": 32.0, "fp32_8": 20.0, "int8_8": 8.0}
    found = told("batch", (1, 8), {name: [own] * 5 for name, own in times.items()})
    assert found["batch_8_fp32_vs_eager"] == pytest.approx(1.6)
    assert found["batch_8_fp32_vs_1"] == pytest.approx(10.0)
    assert found["batch_1_int8_vs_1"] == 1.0
    assert found["batch_8_eager_ms"] == 32e3


def test_class_vectors_have_length_one():
    vectors = costs.unit_vectors(7, 24)
    assert vectors.shape == (7, 24)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_every_axis_is_measured(subject: Subject, monkeypatch):
    monkeypatch.setattr(costs, "BATCHES", (1, 6))
    monkeypatch.setattr(costs, "CLASSES", (3, 30))
    monkeypatch.setattr(costs, "TEXTS", (3,))
    monkeypatch.setattr(costs, "SIZES", (32,))
    monkeypatch.setattr(costs, "random_clip", lambda name, size: tiny_clip())
    monkeypatch.setattr(costs, "names", lambda count: [f"thing {i}" for i in range(count)])
    eager = peers.eager(subject.clip, subject.constants)  # the exporter takes its time
    monkeypatch.setattr(peers, "text_at_every_call", lambda clip, texts: eager)
    assert costs.against_batch(subject, 0.1)["batch_6_fp32_vs_1"] > 0
    found = costs.against_classes(subject, 0.1)
    assert found["classes_30_int8_vs_3"] > 0
    assert found["classes_3_text_at_every_call_vs_eager"] > 0
    assert costs.against_size("tiny", 0.1)["size_32_fp32_vs_eager"] > 0
