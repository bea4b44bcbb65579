import math

import pytest
import torch

from fedprompt.experiments.evaluation import confusion, metrics, spread_choice

# four images, three classes; the third class is neither true nor ever right
PROBABILITIES = [[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.3, 0.2, 0.5]]
TRUTH = [0, 1, 1, 0]


def logits() -> torch.Tensor:
    return torch.tensor(PROBABILITIES).log()


def labels() -> torch.Tensor:
    return torch.tensor(TRUTH)


def test_values_computed_by_hand() -> None:
    found = metrics(logits(), labels())
    assert found["accuracy"] == 2 / 4
    # class 0: precision 1/2, recall 1/2; class 1: precision 1, recall 1/2; class 2 is not there
    assert found["macro_f1"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    losses = [-math.log(0.8), -math.log(0.3), -math.log(0.7), -math.log(0.3)]
    assert found["nll"] == pytest.approx(sum(losses) / 4, rel=1e-6)
    # each confidence has a bin of its own: |0.8 - 1|, |0.6 - 0|, |0.7 - 1|, |0.5 - 0|
    assert found["ece"] == pytest.approx((0.2 + 0.6 + 0.3 + 0.5) / 4, rel=1e-5)


def test_a_sure_and_right_model() -> None:
    found = metrics(torch.eye(3) * 100, torch.arange(3))
    assert found == {"accuracy": 1.0, "macro_f1": 1.0, "ece": 0.0, "nll": 0.0}


def test_a_class_without_images_does_not_lower_f1() -> None:
    assert metrics(torch.eye(5)[:2] * 100, torch.arange(2))["macro_f1"] == 1.0


def test_confusion_has_the_truth_in_its_rows() -> None:
    assert confusion(logits(), labels()) == [[1, 0, 1], [1, 1, 0], [0, 0, 0]]


def test_the_choice_goes_through_the_classes_in_turn() -> None:
    truth = torch.tensor([0] * 10 + [1] * 2 + [2] * 5)
    chosen = spread_choice(truth, 8, seed=0)
    assert [int(truth[i]) for i in chosen] == [0, 1, 2, 0, 1, 2, 0, 2]
    assert len(set(chosen)) == 8
    assert spread_choice(truth, 8, seed=0) == chosen
    assert spread_choice(truth, 8, seed=1) != chosen


@pytest.mark.parametrize("count", [0, 3, 9])
def test_no_more_than_there_are(count: int) -> None:
    assert sorted(spread_choice(torch.tensor([1, 0, 1]), count, 0)) == list(range(min(count, 3)))
