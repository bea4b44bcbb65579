import io

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import peers
from benchmarks.inference_jpeg import OpenClip, TwoGraphs, classifier, photographs, softmax
from benchmarks.inference_jpeg import _figures as figures
from fedprompt.data.fashion_mnist import CLASSES


def test_photographs_are_distinct_jpeg_files():
    files = photographs(6)
    assert len(set(files)) == 6
    image = Image.open(io.BytesIO(files[0]))
    assert (image.format, image.size) == ("JPEG", (512, 512))
    assert np.asarray(image).std() > 20  # there is something on it


def test_all_pipelines_give_the_same_probabilities(subject, monkeypatch):
    monkeypatch.setattr(peers, "two_graphs", peers.eager)  # the exporter takes its time
    files = photographs(3)
    expected = OpenClip(subject)(files)
    np.testing.assert_allclose(expected.sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(TwoGraphs(subject)(files), expected, atol=1e-4)
    for shares, one in zip(expected, classifier(subject, "fp32").predict(files), strict=True):
        assert one.top == CLASSES[int(shares.argmax())]
        assert one.probabilities[0] == pytest.approx(shares.max(), abs=1e-4)


def test_softmax_is_torchs():
    logits = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32) * 100
    expected = torch.from_numpy(logits).softmax(1).numpy()
    np.testing.assert_allclose(softmax(logits), expected, atol=1e-6)


def test_figures_compare_with_open_clip_and_with_the_graph_alone():
    times = {"open_clip": 6.0, "fp32": 3.0, "fp32_graph": 2.0, "int8": 2.0, "int8_graph": 1.0}
    found = figures("tiny_b16", {name: [own] * 5 for name, own in times.items()})
    assert found["tiny_b16_end_to_end_fp32_vs_open_clip"] == 2.0
    assert found["tiny_b16_end_to_end_int8_over_graph"] == 2.0
    assert not any("fp32_graph" in key for key in found)
