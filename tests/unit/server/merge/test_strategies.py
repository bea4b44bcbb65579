"""Flower's strategies by name, and the state that outlives them."""

import numpy as np
import pytest
from flwr.serverapp.strategy import (
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedProx,
    FedYogi,
    Krum,
)

from fedprompt.settings.server import ServerConfig
from server.merge.robust import BestOfKrum, Bulyan, TrimmedMean
from server.merge.strategies import STRATEGIES, rebase, restore, state


def make(name, **settings):
    return STRATEGIES[name](ServerConfig(strategy=name, **settings))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("fedavg", FedAvg),
        ("fedprox", FedProx),
        ("fedadam", FedAdam),
        ("fedyogi", FedYogi),
        ("fedavgm", FedAvgM),
        ("fedmedian", FedMedian),
        ("fedtrimmedavg", TrimmedMean),
        ("krum", Krum),
        ("multikrum", BestOfKrum),
        ("bulyan", Bulyan),
    ],
)
def test_each_name_is_flowers_strategy_or_one_upon_it(name, kind):
    assert type(make(name)) is kind


def test_every_configurable_strategy_is_there():
    names = ServerConfig.model_fields["strategy"].annotation.__args__
    assert sorted(names) == sorted(STRATEGIES)


def test_settings_reach_the_strategy():
    assert make("fedprox", mu=0.3).proximal_mu == 0.3
    adam = make("fedadam", learning_rate=0.5, beta_1=0.1, beta_2=0.2, tau=0.3)
    assert (adam.eta, adam.beta_1, adam.beta_2, adam.tau) == (0.5, 0.1, 0.2, 0.3)
    assert make("fedavgm", momentum=0.7).server_momentum == 0.7
    for name in ("fedtrimmedavg", "bulyan"):
        assert make(name, byzantine=2).byzantine == 2
    for name in ("krum", "multikrum"):
        assert make(name, byzantine=2).num_malicious_nodes == 2


def test_moments_come_back():
    old, new = make("fedadam"), make("fedadam")
    old.m_t, old.v_t = {"ctx": np.ones(3)}, {"ctx": np.full(3, 2.0)}
    restore(new, state(old))
    assert new.m_t["ctx"].tobytes() == old.m_t["ctx"].tobytes()
    assert new.v_t["ctx"].tobytes() == old.v_t["ctx"].tobytes()


def test_velocity_comes_back_in_order():
    old, new = make("fedavgm"), make("fedavgm")
    old.momentum_vector = [np.full(2, float(i)) for i in range(12)]
    restore(new, state(old))
    assert [v[0] for v in new.momentum_vector] == list(range(12))


def test_a_fresh_strategy_has_no_state():
    for name in STRATEGIES:
        assert state(make(name)) == {}
        restore(make(name), {})


def test_rebase_makes_momentum_start_from_what_travelled():
    strategy = make("fedavgm")
    strategy.current_arrays = object()
    rebase(strategy)
    assert strategy.current_arrays is None
    adam = make("fedadam")
    adam.current_arrays = {"x": np.ones(1)}
    rebase(adam)
    assert adam.current_arrays is not None
