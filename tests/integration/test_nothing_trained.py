"""Nothing trained means nothing changed: whatever the rule, ranks, strategy and protection.

Toy sites return what they were given, through the real messages, gate, strategies and secure sum.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from client.reply.secure_aggregation import secured
from fedprompt.prompt_state import PromptState
from fedprompt.settings.privacy import PrivacyConfig
from server.merge.privacy import mechanism as privacy
from server.merge.robust import LEAST
from server.merge.strategies import STRATEGIES
from server.rounds.local_grid import LocalGrid
from server.rounds.loop import Rounds
from server.rounds.strategy_adapter import as_travelled
from tests import round_lines
from tests.sites import client, config, repack, task, unpack

SITES = 7  # Bulyan bears one hostile site of seven
TOLERANCE = {"float32": 2e-6, "float16": 5e-3}  # relative; the merged factors are rounded once more


def learns_nothing(rank: int, rule: str = "product"):
    """Return a site that gives back the prompt, cut to its rank as `client.site.Site` cuts it."""

    def reply(message, honest):
        if rule == "fresh-basis":
            return repack(honest, lambda _: {"ctx.B": np.zeros((rank, 12), np.float32)})
        return repack(honest, lambda _: unpack(message).truncate(rank))

    return reply


def moved(arrays: PromptState, start: PromptState) -> float:
    """Return how far the dense prompt lies from its start, over the start's norm."""
    now, then = arrays.lift(), start.lift()
    difference = sum(np.sum((now[n] - then[n]) ** 2) for n in then)
    return float(np.sqrt(difference / sum(np.sum(a**2) for a in then.values())))


@st.composite
def runs(draw):
    rule = draw(st.sampled_from(["product", "product", "shared-basis", "fresh-basis", "factors"]))
    protection = draw(st.sampled_from(["", "", "privacy", "secure", "both"]))
    strategies = sorted(STRATEGIES)
    if protection or rule == "factors":
        strategies = sorted(set(STRATEGIES) - set(LEAST))
    if rule == "factors":
        protection = draw(st.sampled_from(["", "privacy"]))
    rank = draw(st.integers(1, 4))
    ranks = [draw(st.integers(1, rank)) if rule == "product" else rank for _ in range(SITES)]
    dtype = draw(st.sampled_from(["float32", "float16"]))
    return rule, draw(st.sampled_from(strategies)), protection, rank, ranks, dtype


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chosen=runs(), seed=st.integers(0, 2**16))
def test_a_prompt_that_nobody_trains_stays(chosen, seed, monkeypatch):
    rule, strategy, protection, rank, ranks, dtype = chosen
    monkeypatch.setattr(privacy, "add_noise", lambda mean, _: mean)
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(4, rank)), rng.normal(size=(rank, 12))
    arrays = {"ctx.A": a, "ctx.B": b}
    if rule == "shared-basis":
        del arrays["ctx.A"]
    if rule == "fresh-basis":
        arrays = {"ctx": a @ b}
    start = as_travelled(PromptState(arrays), dtype)
    with tempfile.TemporaryDirectory() as folder:
        server = config(
            Path(folder),
            rounds=3,
            rule=rule,
            strategy=strategy,
            dtype=dtype,
            byzantine=int(strategy in LEAST),
            secure_aggregation=protection in ("secure", "both"),
            weighting="uniform" if protection in ("secure", "both") else "examples",
            clip_norm=5.0,
        )
        noise = PrivacyConfig(noise_multiplier=100.0, clip_norm=5.0)
        told = task(start)
        if rule == "fresh-basis":
            told = replace(told, reply=PromptState({"ctx.B": np.zeros((rank, 12))}))
        agreed = {f"server.{k}": v for k, v in server.model_dump().items()}
        hidden = None
        if protection in ("privacy", "both"):
            hidden = privacy.Mechanism(noise, server, told.run)
            agreed |= {f"privacy.{k}": v for k, v in noise.model_dump().items()}
        sites = client({n: learns_nothing(r, rule) for n, r in enumerate(ranks)}, mods=[secured])
        with LocalGrid(sites, SITES, agreed) as grid:
            state = Rounds(grid, told, server, SITES, hidden).run()
        lines = round_lines.read(Path(folder))
    assert moved(state.arrays, start) < TOLERANCE[dtype]
    if protection in ("", "privacy"):
        reasons = [verdict["reasons"] for verdict in lines[1]["verdicts"]]
        assert reasons == [["unchanged"]] * SITES


def test_a_site_of_smaller_rank_does_not_wear_the_prompt_away(tmp_path):
    """It used to vote zero on what it could not hold: a half of the rest each round."""
    left = np.float32([[3, 0], [0, 2], [0, 0], [0, 0]])
    arrays = {"ctx.A": left, "ctx.B": np.eye(2, 12, dtype=np.float32)}
    told, server = task(arrays), config(tmp_path, rounds=5)
    with LocalGrid(client({n: learns_nothing(1 + n % 2) for n in range(4)}), 4, {}) as grid:
        state = Rounds(grid, told, server, 4).run()
    found = np.linalg.svd(state.arrays.lift()["ctx"], compute_uv=False)
    assert found[:2] == pytest.approx([3, 2], rel=1e-6)


def test_what_a_site_of_smaller_rank_learns_is_added_whole(tmp_path):
    """Given diag(3, 0) of diag(3, 2), it returns diag(3.5, 0): the mean moves by a half of 0.5."""

    def learns(message, honest):
        found = unpack(message).truncate(1)
        longer = {"ctx.A": found["ctx.A"] * np.float32(3.5 / 3)}
        return repack(honest, lambda _: found | longer)

    left = np.float32([[3, 0], [0, 2], [0, 0], [0, 0]])
    arrays = {"ctx.A": left, "ctx.B": np.eye(2, 12, dtype=np.float32)}
    server = config(tmp_path, rounds=1, weighting="uniform", clip_factor=0.0)
    with LocalGrid(client({0: learns, 1: learns_nothing(2)}), 2, {}) as grid:
        state = Rounds(grid, task(arrays), server, 2).run()
    expected = np.zeros((4, 12))
    expected[0, 0], expected[1, 1] = 3.25, 2
    np.testing.assert_allclose(state.arrays.lift()["ctx"], expected, atol=1e-5)
