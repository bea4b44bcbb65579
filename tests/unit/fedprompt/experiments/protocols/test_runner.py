import json

import pytest

from fedprompt.errors import ConfigError, PromptError
from fedprompt.experiments.protocols import PROTOCOLS, runner
from fedprompt.experiments.protocols.runner import Result, Series
from fedprompt.experiments.protocols.trial import Measured, Protocol, TrainedMethod
from fedprompt.settings.run_config import defaults
from tests.pictures import image_folder


class Toy:
    """A protocol that notes what it ran, and fails where it is told to."""

    def __init__(self, clip):
        self.clip, self.ran, self.broken = clip, [], set()

    def run(self, trial):
        key = (trial.config.prompt.method, trial.config.prompt.seed)
        self.ran.append((*key, trial.folder))
        if key in self.broken:
            raise PromptError(f"{key} is broken")
        method = TrainedMethod(self.clip, trial.config, ("cat", "dog"), None)
        return Measured({"second": 0.25 * key[1], "first": None}, method)


@pytest.fixture
def toy(clip):
    return Toy(clip)


def make(toy, tmp_path, methods=("template", "dip"), seeds=(0, 1), **given):
    own = {key.replace("__", ".", 1): value for key, value in given.items()}
    return Series(
        name="toy",
        protocol=Protocol(
            run=toy.run, headline="second", defaults={"data.shots": 16, "fit.batch": 8}
        ),
        cases={method: {"prompt.method": method} for method in methods},
        seeds=seeds,
        given=own,
        output=tmp_path / "out",
    )


def test_settings_are_the_defaults_the_protocols_the_users_and_the_cases(toy, tmp_path):
    series = make(toy, tmp_path, fit__batch=4, data__seed=9, prompt__method="vpt")
    series.cases["deep"] = {"prompt.method": "coop", "prompt.form": "lowrank"}
    found = series.config("deep", 2).flat()
    changed = {key: value for key, value in found.items() if value != defaults()[key]}
    assert changed == {
        "data.shots": 16, "fit.batch": 4, "prompt.method": "coop", "prompt.form": "lowrank",
        "data.seed": 2, "prompt.seed": 2, "server.seed": 2, "server.rule": "product",
    }  # fmt: skip


def test_every_method_and_seed_is_run_once_and_kept(toy, tmp_path):
    told = []
    found = make(toy, tmp_path).results(told.append)
    assert [(r.case, r.seed) for r in found] == [
        ("template", 0), ("template", 1), ("dip", 0), ("dip", 1),
    ]  # fmt: skip
    assert toy.ran[1][2] == tmp_path / "out" / "template" / "seed-1"
    assert told[1] == "template, seed 1: second 0.2500, first -"
    assert list(found[0].metrics) == ["second", "first"]
    again = make(toy, tmp_path, methods=("template", "dip", "coop"))
    assert again.kept() == found
    assert [(r.case, r.metrics) for r in again.results(told.append)][:4] == [
        (r.case, r.metrics) for r in found
    ]
    assert [run[0] for run in toy.ran[4:]] == ["coop", "coop"]
    assert list(again.kept()[0].metrics) == ["second", "first"]


def test_a_failure_hides_no_other_trial_and_is_run_again(toy, tmp_path):
    toy.broken = {("template", 0)}
    told = []
    with pytest.raises(PromptError, match=r"1 of 4 trials failed, first: .* is broken"):
        make(toy, tmp_path).results(told.append)
    assert len(make(toy, tmp_path).kept()) == 3
    assert told[0].startswith("template, seed 0: failed: ")
    toy.broken, toy.ran = set(), []
    make(toy, tmp_path).results(told.append)
    assert [run[:2] for run in toy.ran] == [("template", 0)]


def test_a_folder_of_other_settings_is_refused(toy, tmp_path):
    make(toy, tmp_path, fit__batch=4).results(print)
    with pytest.raises(ConfigError, match=r"holds results of .*give another --output"):
        make(toy, tmp_path, fit__batch=5).results(print)


def test_a_case_that_means_something_else_now_is_refused(toy, tmp_path):
    make(toy, tmp_path).results(print)
    other = make(toy, tmp_path)
    other.cases["dip"]["prompt.rank"] = 2
    assert {result.case for result in other.kept()} == {"template"}
    with pytest.raises(ConfigError, match=r"asked for is .*'prompt\.rank': 2"):
        other.results(print)


def test_names_make_folders(toy, tmp_path):
    series = make(toy, tmp_path, seeds=(3,))
    series.cases["product, 10 sites / alpha 0.3"] = {}
    series.results(print)
    assert toy.ran[-1][2] == tmp_path / "out" / "product-10-sites-alpha-0.3" / "seed-3"


def test_an_unknown_method_is_refused_before_anything_runs(toy, tmp_path):
    with pytest.raises(ConfigError, match=r"prompt\.method = 'deep'"):
        make(toy, tmp_path, methods=("dip", "deep")).results(print)
    assert not toy.ran
    assert not (tmp_path / "out").exists()


def test_a_damaged_result_is_named(toy, tmp_path):
    make(toy, tmp_path).results(print)
    path = tmp_path / "out" / "dip" / "seed-1" / "result.json"
    path.write_text('{"method": "dip"}')
    with pytest.raises(ConfigError, match=r"dip/seed-1/result\.json is damaged"):
        make(toy, tmp_path).results(print)


def test_a_result_survives_json(tmp_path):
    size = {"parameters": 3, "sent": 2, "bytes_up": 9}
    figures = {"a": None, "b": 0.1}
    one = Result(case="m", own={}, seed=1, form="", metrics=figures, seconds=1.5, **size)
    path = tmp_path / "r.json"
    path.write_text(json.dumps(vars(one)))
    assert runner._read(path) == one


@pytest.mark.slow
def test_processes_run_trials_beside_each_other_to_the_same_results(tmp_path):
    photos = image_folder(tmp_path / "photos", ("ant", "bee", "cat", "dog"), 6)

    def series(output):
        return Series(
            name="base-to-new",
            protocol=PROTOCOLS["base-to-new"],
            cases={"template": {"prompt.method": "template"}, "dip": {"prompt.method": "dip"}},
            seeds=(0,),
            given={"data.source": str(photos), "fit.epochs": 2},
            output=tmp_path / output,
        )

    beside, alone = series("a").results(print, workers=2), series("b").results(print)
    assert [r.case for r in beside] == ["template", "dip"]
    assert [r.metrics for r in beside] == [r.metrics for r in alone]
