"""Planning a round with a strategy and merging what passed."""

from dataclasses import replace

import numpy as np
import pytest
from flwr.app import Message, RecordDict

from fedprompt.errors import PromptError
from fedprompt.prompt_state import PromptState
from fedprompt.settings.server import ServerConfig
from fedprompt.wire import from_array_record, to_array_record
from server.gate.verdict import Accepted
from server.merge.rules import RULES
from server.merge.strategies import STRATEGIES
from server.rounds.local_grid import LocalGrid
from server.rounds.strategy_adapter import Instruction, as_travelled, merge, plan
from tests.sites import client, start

NODES = [1000, 1002]
RULE = RULES["product"]


@pytest.fixture
def grid():
    with LocalGrid(client(), 3, {}) as grid:
        yield grid


def strategy(name="fedavg", **settings):
    return STRATEGIES[name](ServerConfig(strategy=name, **settings))


def without_nonce(config):
    return {key: value for key, value in config.items() if key != "nonce"}


def planned(grid, chosen, dtype="float32"):
    arrays = start()
    instruction = Instruction("run", 4, 11, 2)
    wire = to_array_record(arrays, dtype)
    return plan(chosen, grid, RULE.lift(arrays), dict.fromkeys(NODES, wire), instruction)


def test_the_chosen_sites_get_the_factors_and_the_settings(grid):
    contents = planned(grid, strategy())
    assert sorted(contents) == [1000, 1002]
    content = contents[1000]
    told = {"run": "run", "round": 4, "seed": 11, "sites": 2, "mu": 0.0}
    assert without_nonce(content["config"]) == told
    shapes = {name: array.shape for name, array in start().items()}
    found = from_array_record(content["arrays"], shapes, "float32")
    assert found["ctx.A"].tobytes() == start()["ctx.A"].tobytes()


def test_fedprox_sends_its_weight(grid):
    assert planned(grid, strategy("fedprox", mu=0.25))[1000]["config"]["mu"] == 0.25


def test_half_precision_is_what_travels(grid):
    assert planned(grid, strategy(), "float16")[1000]["arrays"]["ctx.A"].dtype == "float16"


def updates(weights=(1, 3)):
    rng = np.random.default_rng(0)
    found, messages = [], {}
    for i, weight in enumerate(weights):
        found.append(Accepted(i, 1000 + i, {"ctx": rng.normal(size=(4, 32))}, weight, 0.5))
        messages[1000 + i] = Message(RecordDict(), 1000 + i, "train")
    return found, messages


def test_the_weighted_mean_is_merged(grid):
    found, messages = updates()
    merged = merge(strategy(), RULE, start(rank=4), found, messages, 1, "float32")
    expected = (found[0].update["ctx"] + 3 * found[1].update["ctx"]) / 4
    np.testing.assert_allclose(merged.arrays["ctx.A"] @ merged.arrays["ctx.B"], expected, atol=1e-5)
    assert merged.truncation_error < 1e-9  # rank 4 of 4 rows: nothing is cut


def test_a_lower_rank_reports_what_it_lost(grid):
    found, messages = updates()
    merged = merge(strategy(), RULE, start(), found, messages, 1, "float32")
    assert 0.1 < merged.truncation_error < 1


def test_factors_report_what_averaging_lost(grid):
    rng = np.random.default_rng(1)
    found, messages = [], {}
    for i in range(5):
        update = {"ctx.A": rng.normal(size=(4, 1)), "ctx.B": rng.normal(size=(1, 32))}
        found.append(Accepted(i, i, update, 1, 0.5))
        messages[i] = Message(RecordDict(), i, "train")
    merged = merge(strategy(), RULES["factors"], start(), found, messages, 1, "float32")
    assert merged.truncation_error > 0.5


def test_what_was_lost_is_told_of_the_rounds_change_too(grid):
    """A long prompt that moves a little: what is lost of the move is small beside the prompt."""
    current = PromptState({"ctx.A": np.eye(4, 1), "ctx.B": 100 * np.eye(1, 32)})
    moved = current.lift()["ctx"]
    moved[0, 0], moved[1, 1] = 103, 4  # at rank 1 the second part is lost
    found, messages = updates()
    found = [replace(update, update={"ctx": moved}) for update in found]
    merged = merge(strategy(), RULE, current, found, messages, 1, "float32")
    assert merged.truncation_error == pytest.approx(4 / np.hypot(103, 4), rel=1e-6)
    assert merged.truncation_of_change == pytest.approx(4 / 5, rel=1e-5)


def test_factors_tell_what_averaging_lost_of_the_change(grid):
    current = PromptState({"ctx.A": np.float32([[1], [0]]), "ctx.B": np.float32([[10, 0]])})
    found, messages = [], {}
    for i, (a, b) in enumerate([([2, 0], [10, 2]), ([1, 0], [10, 0])]):
        update = {"ctx.A": np.array([a]).T.astype(float), "ctx.B": np.array([b]).astype(float)}
        found.append(Accepted(i, i, update, 1, 0.5))
        messages[i] = Message(RecordDict(), i, "train")
    merged = merge(strategy(), RULES["factors"], current, found, messages, 1, "float32")
    exact, kept = np.array([15, 2.0]), 1.5 * np.array([10, 1.0])
    lost = np.linalg.norm(exact - kept)
    assert merged.truncation_error == pytest.approx(lost / np.linalg.norm(exact))
    assert merged.truncation_of_change == pytest.approx(lost / np.linalg.norm(exact - [10, 0]))


@pytest.mark.parametrize("name", sorted(RULES))
def test_a_prompt_that_nobody_moved_has_lost_nothing(grid, name):
    rng = np.random.default_rng(0)
    current = {"ctx.A": rng.normal(size=(4, 1)), "ctx.B": rng.normal(size=(1, 32))}
    if name.endswith("basis"):
        del current["ctx.A"]
    current = PromptState(current)
    found, messages = updates()
    found = [replace(update, update=RULES[name].lift(current)) for update in found]
    merged = merge(strategy(), RULES[name], current, found, messages, 1, "float32")
    assert merged.truncation_error < 1e-6
    assert merged.truncation_of_change == 0


def test_nothing_to_merge_keeps_the_arrays(grid):
    arrays = start()
    assert merge(strategy(), RULE, arrays, [], {}, 1, "float32").arrays is arrays


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_every_strategy_returns_float32_factors(grid, name):
    chosen = strategy(name, byzantine=1)
    planned(grid, chosen)
    found, messages = updates(weights=range(1, 8))
    merged = merge(chosen, RULE, start(), found, messages, 1, "float32")
    assert {a.dtype for a in merged.arrays.values()} == {np.dtype(np.float32)}
    assert {n: a.shape for n, a in merged.arrays.items()} == {
        n: a.shape for n, a in start().items()
    }


@pytest.mark.parametrize(("dtype", "value"), [("float16", 1e5), ("float32", np.nan)])
def test_what_the_wire_cannot_hold_is_not_committed(dtype, value):
    with pytest.raises(PromptError, match=f"x of the server's prompt is not finite in {dtype}"):
        as_travelled(PromptState({"x": np.array([value])}), dtype)


def test_as_travelled_rounds_to_the_wire():
    arrays = PromptState({"x": np.float32([1 / 3])})
    assert as_travelled(arrays, "float32")["x"].tobytes() == arrays["x"].tobytes()
    assert as_travelled(arrays, "float16")["x"][0] == np.float32(np.float16(1 / 3))


def test_F15_nobody_can_foresee_what_the_server_sends():
    """All else in it is known to every site a round before."""
    first, second = (Instruction("r", 1, 2, 3).record() for _ in range(2))
    assert first.object_id != second.object_id
    assert first["nonce"].bit_length() == second["nonce"].bit_length() == 63  # equal bytes


def test_an_instruction_is_a_flat_record():
    assert without_nonce(Instruction("r", 1, 2, 3).record(0.5)) == {
        "run": "r",
        "round": 1,
        "seed": 2,
        "sites": 3,
        "mu": 0.5,
    }
