import numpy as np
import pytest

from client.tuning.evaluate import predict
from fedprompt.experiments.protocols.calibration import run
from fedprompt.experiments.setup import open_experiment


def ece(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Return sum_b |B_b| / n |accuracy(B_b) - confidence(B_b)| (Guo et al. 2017)."""
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    place = np.ceil(confidence * bins)
    return sum(
        (place == b).mean() * abs(right[place == b].mean() - confidence[place == b].mean())
        for b in np.unique(place)
    )


@pytest.mark.parametrize(("half", "prefix"), [("base", ""), ("new", "new_")])
def test_both_figures_of_both_halves(make_trial, half, prefix):
    found = run(make_trial(prompt__method="coop"))
    assert list(found.metrics) == ["ece", "nll", "new_ece", "new_nll"]
    bench = open_experiment(found.tuned.config.override({"data.subsample_classes": half}))
    images, labels = bench.encode(bench.test)
    logits = predict(found.tuned.for_classes(bench.test.classes), images).double().numpy()
    shares = np.exp(logits - logits.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    nll = -np.log(shares[np.arange(len(labels)), labels]).mean()
    assert found.metrics[f"{prefix}nll"] == pytest.approx(nll, rel=1e-5)
    assert found.metrics[f"{prefix}ece"] == pytest.approx(ece(shares, labels.numpy()), abs=1e-5)
