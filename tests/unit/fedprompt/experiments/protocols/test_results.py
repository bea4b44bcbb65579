import csv
import io
import json

import numpy as np
import pytest
from PIL import Image

from fedprompt.experiments.protocols.results import markdown, plots, rows, to_csv, to_json
from fedprompt.experiments.protocols.runner import Result


def result(case, seed, sent=516, **metrics):
    return Result(
        case=case, own={}, seed=seed, form="full", parameters=sent, sent=sent,
        bytes_up=4 * sent + 300, metrics=metrics, seconds=1.0,
    )  # fmt: skip


ACCURACIES = (0.5, 0.62, 0.71)
RESULTS = [
    *(result("dip", seed, base_acc=a, nll=2 * a) for seed, a in enumerate(ACCURACIES)),
    *(result("probe", seed, 40, base_acc=0.5, new_acc=None, nll=1.0) for seed in range(3)),
]


def test_mean_and_deviation_are_over_seeds():
    dip, probe = rows(RESULTS)
    assert (dip.case, dip.seeds, dip.sent) == ("dip", (0, 1, 2), 516)
    assert dip.metrics["base_acc"].mean == pytest.approx(np.mean(ACCURACIES))
    assert dip.metrics["base_acc"].std == pytest.approx(np.std(ACCURACIES, ddof=1))
    assert (probe.metrics["new_acc"].mean, probe.metrics["base_acc"].std) == (None, 0.0)


def test_one_seed_has_no_deviation():
    (row,) = rows([result("dip", 4, base_acc=0.5)])
    assert (row.metrics["base_acc"].mean, row.metrics["base_acc"].std) == (0.5, None)
    assert "| 50.0 |" in markdown([row])


def test_a_figure_that_one_seed_lacks_is_no_mean_of_the_others():
    (row,) = rows([result("m", 0, new_acc=0.5), result("m", 1, new_acc=None)])
    assert row.metrics["new_acc"].mean is None


def test_the_page():
    lines = markdown(rows(RESULTS)).splitlines()
    assert lines[0] == "| method | form | base_acc | nll | new_acc | trained | sent | bytes up |"
    assert lines[2] == "| dip | full | 61.0 ± 10.5 | 1.220 ± 0.211 | - | 516 | 516 | 2,364 |"
    assert lines[3] == "| probe | full | 50.0 ± 0.0 | 1.000 ± 0.000 | - | 40 | 40 | 460 |"


def test_the_sheet():
    dip, probe = csv.DictReader(io.StringIO(to_csv(rows(RESULTS))))
    assert float(dip["base_acc_mean"]) == pytest.approx(np.mean(ACCURACIES))
    assert float(dip["base_acc_std"]) == pytest.approx(np.std(ACCURACIES, ddof=1))
    assert (dip["seeds"], dip["bytes_up"], probe["new_acc_mean"]) == ("0 1 2", "2364", "")


def test_the_object_has_rows_and_trials():
    told = json.loads(to_json("base-to-new", rows(RESULTS), RESULTS))
    assert told["protocol"] == "base-to-new"
    assert [trial["metrics"]["base_acc"] for trial in told["trials"][:3]] == [*ACCURACIES]
    assert told["rows"][1]["metrics"]["new_acc"] == {"mean": None, "std": None}


def test_plots_show_whom_they_can():
    with_new = [result("dip", 0, base_acc=0.5, new_acc=0.4), result("zero", 0, 0, base_acc=0.3)]
    drawn = plots(rows(with_new), "base_acc")
    assert sorted(drawn) == ["accuracy_against_sent.png", "base_against_new.png"]
    assert all(png.startswith(b"\x89PNG") for png in drawn.values())
    assert list(plots(rows(RESULTS), "base_acc")) == ["accuracy_against_sent.png"]
    assert plots(rows(RESULTS), "unknown") == {}


def test_a_plot_is_a_picture_of_a_size_that_fits_a_page() -> None:
    drawn = plots(rows(RESULTS), "base_acc")["accuracy_against_sent.png"]
    assert Image.open(io.BytesIO(drawn)).size == (960, 660)
