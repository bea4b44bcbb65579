import os
import statistics

import numpy as np
import pytest

from benchmarks import rounds as module
from benchmarks.rounds import Turn
from client.site import simulated
from fedprompt.settings.run_config import RunConfig


def test_a_ratio_is_ours_over_the_sum_of_the_others():
    turn = Turn(ours=(3.0, 1.2), nothing=(1.0, 0.2), compute=(2.0, 0.8))
    assert turn.ratio(0) == 1.0
    assert turn.ratio(1) == pytest.approx(1.2)


def test_medians_are_taken_over_turns():
    turns = [Turn((o, o), (0.5, 0.5), (0.5, 0.5)) for o in (1.0, 9.0, 2.0)]
    figures = module.summary(10, turns)
    assert figures["ratio_10"] == figures["ratio_cpu_10"] == statistics.median([1.0, 9.0, 2.0])
    assert figures["seconds_ours_10"] == 2.0


def test_a_site_finds_its_features_in_the_cache_and_takes_one_step(monkeypatch):
    monkeypatch.setenv("FEDPROMPT_CACHE", "before")
    monkeypatch.setattr(
        "client.features.encode._encode",
        lambda *_: pytest.fail("an image was encoded"),
    )
    with module.prepared(2, 3) as flat:
        sites = [simulated(RunConfig.parse(flat), partition, 2) for partition in range(2)]
        assert {len(site.train_labels) for site in sites} == {flat["fit.batch"]}
        before = sites[0].prompt.arrays()["ctx"]
        module.compute(sites)
        assert not np.array_equal(before, sites[0].prompt.arrays()["ctx"])
    assert os.environ["FEDPROMPT_CACHE"] == "before"


def test_every_kind_of_round_is_measured(capsys):
    figures = module.measure({2: 2})
    kinds = ("ratio", "ratio_cpu", "seconds_ours", "seconds_nothing", "seconds_compute")
    assert set(figures) == {f"{kind}_2" for kind in kinds}
    assert all(np.isfinite(value) and value > 0 for value in figures.values())

    assert "do-nothing" in capsys.readouterr().out
