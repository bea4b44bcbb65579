"""Robust strategies against plain numpy written from the papers, and what they refuse."""

import numpy as np
import pytest
from flwr.app import Message, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedprompt.errors import ConfigError
from fedprompt.settings.server import ServerConfig
from server.gate.replies import to_strategy
from server.gate.verdict import Accepted
from server.merge import robust
from server.merge.bulyan import one_by_one
from server.merge.strategies import STRATEGIES
from server.rounds.attempt import weigh
from server.rounds.local_grid import LocalGrid
from tests.sites import client

NAMES = tuple(robust.LEAST)


@pytest.fixture(autouse=True, scope="module")
def identity():
    with LocalGrid(client(), 1, {}):  # a Message needs a task's identity
        yield


def merged(name, points, byzantine, weights=None):
    """Return what a strategy makes of points [replies numbers], two arrays a reply."""
    strategy = STRATEGIES[name](ServerConfig(strategy=name, byzantine=byzantine))
    updates, messages = [], {}
    for i, point in enumerate(points):
        arrays = {"a": np.asarray(point[:2]), "b": np.asarray(point[2:])[None]}
        updates.append(Accepted(i, i, arrays, 1 if weights is None else weights[i], None))
        messages[i] = Message(RecordDict(), i, "train")
    record, _ = strategy.aggregate_train(1, to_strategy(updates, messages))
    return np.concatenate([record["a"].numpy(), record["b"].numpy()[0]])


def nearest(points, i, left, f):
    """Return the sum of squared distances from i to its closest others."""
    found = sorted(float(np.sum((points[i] - points[j]) ** 2)) for j in left if j != i)
    return sum(found[: max(1, len(left) - f - 2)])


def ranking(points, i, left, f):
    """Return Krum's score, then all distances: one neighbour alone would leave a tie."""
    return (
        nearest(points, i, left, f),
        sorted(float(np.sum((points[i] - points[j]) ** 2)) for j in left if j != i),
    )


def by_krum(points, f):
    everyone = range(len(points))
    return sorted(everyone, key=lambda i: nearest(points, i, everyone, f))


def plain_bulyan(points, f):
    left, chosen = list(range(len(points))), []
    while len(chosen) < len(points) - 2 * f:
        chosen.append(min(left, key=lambda i: ranking(points, i, left, f)))
        left.remove(chosen[-1])
    rows = points[chosen]
    found = []
    for column in rows.T:
        middle = np.median(column)
        near = sorted(column, key=lambda x: abs(x - middle))[: len(rows) - 2 * f]
        found.append(np.mean(near))
    return np.array(found)


PLAIN = {
    "fedmedian": lambda x, f: np.median(x, axis=0),
    "fedtrimmedavg": lambda x, f: np.sort(x, axis=0)[f : len(x) - f].mean(0),
    "krum": lambda x, f: x[by_krum(x, f)[0]],
    "multikrum": lambda x, f: x[by_krum(x, f)[: len(x) - f - 2]].mean(0),
    "bulyan": plain_bulyan,
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("byzantine", [1, 2, 3])
@pytest.mark.parametrize("more", [0, 1, 6])
def test_each_strategy_is_what_its_paper_says(name, byzantine, more):
    rng = np.random.default_rng([byzantine, more])
    count = robust.LEAST[name](byzantine) + more
    points = rng.normal(size=(count, 5)) + 3
    points[:byzantine] *= 1e6
    expected = PLAIN[name](points, byzantine)
    # squares of 1e6 beside squares of 1: rounding of the distances, not of the average
    np.testing.assert_allclose(merged(name, points, byzantine), expected, rtol=1e-9)


def spread(count):
    """Return points of which no two coordinates are equal, so that no choice is a tie."""
    values = hnp.arrays(np.int64, (count, 5), elements=st.integers(-1000, 1000), unique=True)
    return values.map(lambda x: x + np.linspace(0, 0.3, x.size).reshape(x.shape))


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=30)
@given(data=st.data())
def test_the_order_of_replies_does_not_matter(name, data):
    points = data.draw(spread(robust.LEAST[name](1) + 1))
    order = data.draw(st.permutations(range(len(points))))
    one, other = merged(name, points, 1), merged(name, points[list(order)], 1)
    np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=30)
@given(data=st.data())
def test_the_result_lies_among_the_honest(name, data):
    """Up to f sites anywhere: no coordinate leaves the range of the honest ones."""
    byzantine = 2
    points = data.draw(spread(robust.LEAST[name](byzantine)))
    hostile = data.draw(hnp.arrays(float, (2, 5), elements=st.floats(-1e15, 1e15)))
    far = np.abs(hostile) > 1e5
    points[:2] = np.where(far.all(axis=1, keepdims=True), hostile, points[:2])
    found, honest = merged(name, points, byzantine), points
    honest = points[2:] if far.all() else points
    margin = 1e-6 * (1 + np.abs(honest).max())
    assert (found >= honest.min(0) - margin).all()
    assert (found <= honest.max(0) + margin).all()


@pytest.mark.parametrize("name", NAMES)
def test_equal_replies_give_that_reply(name):
    points = np.tile([[0.1, -2.0, 3e-7, 4.0, 5.5]], (robust.LEAST[name](1), 1))
    np.testing.assert_allclose(merged(name, points, 1), points[0], rtol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_float64_comes_back(name):
    """Flower's records must not round what was lifted to float64."""
    point = np.array([1 + 2**-40, 2.0, 3.0, 4.0, 5.0])
    points = np.tile(point, (robust.LEAST[name](1), 1))
    assert abs(merged(name, points, 1)[0] - point[0]) < 2**-50


@pytest.mark.parametrize("byzantine", [29, 57, 58])
def test_the_trimmed_mean_cuts_exactly_f(byzantine):
    """29 / 100 * 100 is 28.999999999999996: Flower's share alone would cut 28."""
    points = np.zeros((2 * byzantine + 42, 3))
    points[:byzantine] = 1e9
    np.testing.assert_array_equal(merged("fedtrimmedavg", points, byzantine), 0)


def test_multikrum_counts_each_chosen_site_once():
    config = ServerConfig(strategy="multikrum", byzantine=1)
    updates = [Accepted(i, i, {"a": np.ones(1)}, 10**i, None) for i in range(5)]
    assert [update.weight for update in weigh(updates, config)] == [1] * 5


def test_bulyan_chooses_one_by_one():
    """Scoring once, as Flower does, is another rule: it often chooses other sites."""
    rng = np.random.default_rng(0)
    differs = 0
    for _ in range(50):
        points = rng.normal(size=(11, 4))
        chosen = one_by_one(points, 2, 7)
        differs += set(by_krum(points, 2)[:7]) != set(chosen)
    assert differs > 10


@pytest.mark.parametrize(
    ("name", "least"),
    [("fedmedian", 5), ("fedtrimmedavg", 5), ("krum", 7), ("multikrum", 7), ("bulyan", 11)],
)
def test_too_few_sites_are_refused_and_just_enough_are_warned_of(name, least, caplog):
    chosen = ServerConfig(strategy=name, byzantine=2)
    robust.check_sites(chosen, 20, least + 1)
    assert not caplog.messages
    robust.check_sites(chosen, least, least)
    assert f"needs all {least} sites" in caplog.text
    with pytest.raises(ConfigError, match=f"needs {least} updates, found {least - 1}; .* of 20"):
        robust.check_sites(chosen, 20, least - 1)


def test_a_mean_takes_any_number():
    assert robust.too_few(ServerConfig(), 1) == ""
