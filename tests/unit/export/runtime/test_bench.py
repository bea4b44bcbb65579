import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from export.runtime import Classifier, bench
from export.runtime.bench import JPEG_SIDE, machine, measure
from fedprompt.errors import ConfigError


@pytest.fixture
def classifier(classifier_file: Path) -> Classifier:
    return Classifier(classifier_file, threads=1)


def test_both_sources_are_timed_with_the_batch_that_was_asked(
    classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    original, logits = classifier.predict, classifier.logits

    def predict(files: Any, **settings: Any) -> Any:
        seen.append(files)
        return original(files, **settings)

    sizes: list[int] = []
    monkeypatch.setattr(classifier, "predict", predict)
    monkeypatch.setattr(classifier, "logits", lambda x: (sizes.append(len(x)), logits(x))[1])
    found = measure(classifier, batch=3, seconds=0.001, threads=1)
    assert [(m.source, m.batch, m.threads) for m in found] == [("images", 3, 1), ("jpeg", 3, 1)]
    assert all(m.calls >= 5 for m in found)
    assert set(sizes) == {1, 3}  # one: the warm-up
    assert {len(files) for files in seen} == {3}
    with Image.open(io.BytesIO(seen[0][0])) as image:
        assert (image.format, image.size) == ("JPEG", (JPEG_SIDE, JPEG_SIDE))


def test_percentiles_and_throughput_are_of_the_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    # 101 calls of 1, 2 ... 101 ms: the percentiles are their own ranks
    times = np.arange(1, 102) / 1e3
    found = bench._summary("images", 4, 2, np.random.default_rng(0).permutation(times))
    assert (found.p50_ms, found.p90_ms, found.p99_ms) == pytest.approx((51, 91, 100))
    assert found.images_per_second == pytest.approx(4 * 101 / 5.151)
    assert found.calls == 101


def test_the_first_calls_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    times = bench._times(lambda: calls.append(1), 1e-9)
    assert len(times) == 5
    assert len(calls) == 7


def test_the_machine_is_named() -> None:
    assert all(machine()[key] for key in ("system", "processor", "cores", "onnxruntime"))


@pytest.mark.parametrize(("batch", "seconds"), [(0, 1.0), (1, 0.0)])
def test_numbers_out_of_range(classifier: Classifier, batch: int, seconds: float) -> None:
    with pytest.raises(ConfigError, match="expected both above 0"):
        measure(classifier, batch=batch, seconds=seconds)
