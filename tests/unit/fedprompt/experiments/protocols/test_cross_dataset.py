from pathlib import Path

import pytest

from fedprompt.errors import ConfigError
from fedprompt.experiments.protocols import cross_domain
from fedprompt.experiments.protocols.cross_dataset import mean, run
from tests.pictures import image_folder


@pytest.fixture
def targets(tmp_path: Path) -> dict:
    """Two sets with classes of their own, of unequal size."""
    made = {}
    for name, classes in (("fruit", ("fig", "lime")), ("tools", ("axe", "saw", "hoe"))):
        image_folder(tmp_path / name / "train", classes, 2)
        image_folder(tmp_path / name / "test", classes, 8, size=44)
        made[name] = {"data.source": str(tmp_path / name)}
    return made


def test_each_target_is_told_apart_among_its_own_classes(make_trial, targets):
    trial = make_trial(prompt__method="coop", targets=targets)
    found = run(trial)
    assert list(found.metrics) == ["source_acc", "target_acc", "accuracy_fruit", "accuracy_tools"]
    fruit, tools = (found.metrics[f"accuracy_{name}"] for name in targets)
    assert found.metrics["target_acc"] == pytest.approx((fruit + tools) / 2)
    assert fruit == found.tuned.score(targets["fruit"])["accuracy"]
    assert (fruit * 16).is_integer()
    assert (tools * 24) == pytest.approx(round(tools * 24))


def test_without_targets_it_says_what_to_give(make_trial):
    with pytest.raises(ConfigError, match=r"give --target FILE\.toml"):
        run(make_trial())


def test_cross_domain_takes_targets_as_well(make_trial, targets):
    trial = make_trial(prompt__method="template", targets=targets)
    assert cross_domain.run(trial).metrics == run(trial).metrics


def test_a_mean_with_a_gap_is_none():
    assert mean({"a": 0.5, "b": 0.25}) == 0.375
    assert mean({"a": 0.5, "b": None}) is None
    assert mean({}) is None
