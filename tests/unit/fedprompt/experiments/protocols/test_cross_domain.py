import csv
from pathlib import Path

import pytest

from fedprompt.errors import DataError
from fedprompt.experiments import centralised_training
from fedprompt.experiments.protocols import domains as module
from fedprompt.experiments.protocols import multi_domain
from fedprompt.experiments.protocols.cross_domain import run
from fedprompt.experiments.protocols.domains import by_domain
from fedprompt.experiments.protocols.tuned import Tuned
from fedprompt.experiments.setup import open_experiment
from tests.pictures import image_folder

CLASSES = ("ant", "bee")


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    """A manifest of three hands: six training and four test images of each class and hand."""
    image_folder(tmp_path, CLASSES, 30)
    path = tmp_path / "drawn.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split", "domain"])
        for name in CLASSES:
            for number in range(30):
                split = "train" if number % 10 < 6 else "test"
                writer.writerow(
                    [f"{name}/{number}.png", name, split, ("ink", "oil", "wax")[number // 10]]
                )
    return path


def test_the_first_domain_alone_is_trained_on(make_trial, drawn, monkeypatch):
    seen = []
    fit = centralised_training.fit_run

    def note(prompt, images, labels, *rest, **more):
        seen.append(labels.tolist())
        return fit(prompt, images, labels, *rest, **more)

    monkeypatch.setattr(centralised_training, "fit_run", note)
    trial = make_trial(data__source=str(drawn), prompt__method="coop", data__shots=4)
    found = run(trial)
    assert sorted(seen[0]) == [0] * 4 + [1] * 4  # shots of the source domain
    names = ["accuracy_ink", "accuracy_oil", "accuracy_wax"]
    assert list(found.metrics) == ["source_acc", "target_acc", *names]
    assert found.metrics["source_acc"] == found.metrics["accuracy_ink"]
    others = (found.metrics["accuracy_oil"] + found.metrics["accuracy_wax"]) / 2
    assert found.metrics["target_acc"] == pytest.approx(others)


def test_without_shots_all_of_the_domain(make_trial, drawn, monkeypatch):
    sizes = []
    fit = centralised_training.fit_run

    def note(prompt, images, labels, *rest):
        sizes.append(len(labels))
        return fit(prompt, images, labels, *rest)

    monkeypatch.setattr(centralised_training, "fit_run", note)
    run(make_trial(data__source=str(drawn), prompt__method="coop"))
    assert sizes == [12]


def test_the_domains_accuracies_make_up_the_whole(make_trial, drawn):
    trial = make_trial(data__source=str(drawn), prompt__method="template")
    bench = open_experiment(trial.config)
    tuned = Tuned(bench.clip, trial.config, CLASSES, None)
    found = by_domain(tuned)
    assert sum(found.values()) / 3 == pytest.approx(tuned.score({})["accuracy"])  # of equal size
    assert module.of_domain(bench.test, 1).domains.tolist() == [1] * 8


def test_images_without_domains_are_refused(make_trial):
    with pytest.raises(DataError, match="belong to no domains"):
        run(make_trial(prompt__method="template"))


def test_a_domain_without_test_images_is_named(make_trial, drawn):
    with pytest.raises(DataError, match=r"has no test image; raise data\.test_limit"):
        run(make_trial(data__source=str(drawn), prompt__method="template", data__test_limit=2))


def test_multi_domain_counts_each_domain_once(make_trial, drawn):
    trial = make_trial(
        data__source=str(drawn), prompt__method="template", data__clients=3,
        data__partitioner="domain",
    )  # fmt: skip
    found = multi_domain.run(trial)
    shares = [found.metrics[f"accuracy_{name}"] for name in ("ink", "oil", "wax")]
    assert found.metrics["accuracy"] == pytest.approx(sum(shares) / 3)
    assert found.metrics["worst_domain_acc"] == min(shares)
    assert multi_domain.PROTOCOL.defaults["data.partitioner"] == "domain"
