"""No finite number that a site says may end a run, or leave one in it that is not finite (F01).

One site of eight is hostile. Whatever it says, at the door, of its training or of its scores, every
round is committed, every committed prompt is finite in the wire's dtype, and every reader of the
record can read it.
"""

import functools
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ConfigRecord, MetricRecord
from hypothesis import given, settings
from hypothesis import strategies as st

from fedprompt.errors import QuorumError
from server import record
from server.checkpoint import load_latest
from server.local_grid import LocalGrid
from server.metrics import RunCollector
from server.privacy.config import PrivacyConfig
from server.privacy.mechanism import Mechanism
from server.report.page import render
from server.report.run_folder import read_run
from server.robust import LEAST
from server.rounds import Rounds
from server.strategies import STRATEGIES
from tests.sites import client, config, repack, start, task, unpack

SITES, BAD, ROUNDS = 8, 2, 2
HALF, SINGLE = float(np.finfo(np.float16).max), float(np.finfo(np.float32).max)
EDGES = (0.0, 5e-324, 1e-45, 1.0, 31_999.0, 32_001.0, HALF, 1e19, 2e19, 1e38, SINGLE, 1.7e308)
EDGES = tuple(sign * edge for edge in EDGES for sign in (1, -1))
NUMBERS = st.sampled_from(EDGES) | st.floats(allow_nan=False, allow_infinity=False)
SINGLES = st.floats(width=32, allow_nan=False, allow_infinity=False) | st.sampled_from(
    tuple(edge for edge in EDGES if abs(edge) <= SINGLE)
)
WHOLE = st.integers(-(2**63), 2**63 - 1) | st.sampled_from((0, 1, 99, 100, 101, 2**53, 2**63 - 1))


def prompt(form):
    """Return a prompt to start from: factors, or a full matrix beside a scalar."""
    if form == "lowrank":
        return start(rank=2)
    if form == "matrix":
        return {"ctx": start()["ctx.A"] @ np.ones((1, 32), np.float32)}
    return {"ctx": start()["ctx.A"] @ np.ones((1, 32), np.float32), "scale": np.float32([1.0])}


def spoilt_arrays(fill, entry):
    """Return a spoiler that fills a reply's arrays, one entry with another number."""

    def change(arrays):
        found = {}
        for name, array in arrays.items():
            filled = np.full(array.shape, fill, np.float32)
            filled.flat[0] = entry
            found[name] = filled
        return found

    return lambda message, reply: repack(message, reply, change)


def spoilt_metrics(**changes):
    """Return a spoiler that replaces metrics."""

    def spoil(message, reply):
        reply["metrics"] = MetricRecord(dict(reply["metrics"]) | changes)
        return reply

    return spoil


def both(*spoilers):
    """Return a spoiler that spoils in turn."""

    def spoil(message, reply):
        for change in spoilers:
            reply = change(message, reply)
        return reply

    return spoil


def declares(images):
    """Return a spoiler of what a site says of itself at the door."""

    def spoil(message, reply):
        reply["identity"] = ConfigRecord(dict(reply["identity"]) | {"num-examples": images})
        return reply

    return spoil


def on_a_basis(message, reply):
    """Return what a site sends under fresh-basis: B of its update alone."""
    return repack(message, reply, lambda _: {"ctx.B": np.zeros((2, 32), np.float32)})


def unmoved(message, reply):
    """Return the prompt as it came: the hostile site alone moves it."""
    if "ctx.B" in reply["arrays"] and "ctx" in unpack(message):
        return reply  # under fresh-basis, where no update is zero
    return repack(message, reply, lambda _: unpack(message))


def abstains(message, reply):
    """Return no images: the hostile site alone has a say."""
    return spoilt_metrics(**{"num-examples": 0})(message, reply)


def run(folder, form, *, train, evaluate=None, query=None, others=None, private=False, **chosen):
    """Run with one hostile site; return the record."""
    arrays = prompt(form)
    told, settings = task(arrays), config(folder, **{"rounds": ROUNDS, "quorum": 0.2} | chosen)
    told = replace(told, averaged=chosen.get("rule") != "factors")
    spoilt = dict.fromkeys(range(SITES), others) if others else {}
    spoilt[BAD] = train
    if chosen.get("rule") == "fresh-basis":
        told = replace(told, reply={"ctx.B": np.zeros((2, 32), np.float32)})
        others = others or (lambda _, reply: reply)
        spoilt = dict.fromkeys(range(SITES), both(on_a_basis, others))
        spoilt[BAD] = both(on_a_basis, train)
    app = client(spoilt, evaluate and {BAD: evaluate}, query and {BAD: query})
    with LocalGrid(app, SITES, {}) as grid:
        secret = PrivacyConfig(noise_multiplier=1.0, epsilon=100.0)
        mechanism = Mechanism(secret, settings, told.run) if private else None
        Rounds(grid, told, settings, SITES, mechanism).run()
    return record.read(folder / "rounds.jsonl")


def check(folder, form, dtype, lines):
    """Check what was committed, and that everybody can read it."""
    assert [line["round"] for line in lines] == list(range(ROUNDS + 1))
    state = load_latest(folder / "checkpoints", task(prompt(form)).run)
    assert state.round == ROUNDS
    for name, array in [*state.arrays.items(), *state.optimiser.items()]:
        assert np.isfinite(array).all(), name
    for name, array in state.arrays.items():
        assert array.astype(dtype).astype(np.float32).tobytes() == array.tobytes(), name
    for text in (folder / "rounds.jsonl").read_text().splitlines():
        json.loads(text, parse_constant=pytest.fail)
    render(read_run(folder))
    assert list(RunCollector(folder).collect())


CASES = [
    *[(name, "product", False) for name in STRATEGIES],
    *[(name, "shared-basis", False) for name in STRATEGIES],
    *[(name, "factors", False) for name in STRATEGIES if name not in LEAST],
    *[(name, "fresh-basis", False) for name in STRATEGIES],
    *[(name, "product", True) for name in STRATEGIES if name not in LEAST],
]


@pytest.mark.slow
@settings(max_examples=50)
@given(
    case=st.sampled_from(CASES),
    form=st.sampled_from(("lowrank", "full")),
    dtype=st.sampled_from(("float32", "float16")),
    factor=st.sampled_from((0.0, 5.0)),
    others=st.sampled_from((None, unmoved, abstains)),
    numbers=st.tuples(SINGLES, SINGLES),
    count=st.none() | WHOLE | NUMBERS,
    loss=st.none() | NUMBERS,
    scores=st.tuples(WHOLE, WHOLE, NUMBERS),
    images=WHOLE,
)
def test_any_finite_numbers_are_borne(
    case, form, dtype, factor, others, numbers, count, loss, scores, images
):
    name, rule, private = case
    robust = name in LEAST
    form = "matrix" if rule == "fresh-basis" else form
    said = {"num-examples": count, "loss": loss}
    said = {key: value for key, value in said.items() if value is not None}
    held, correct, nll = scores
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        lines = run(
            folder, form, strategy=name, rule=rule, dtype=dtype, clip_factor=factor,
            byzantine=int(robust), private=private, others=None if robust else others,
            train=both(spoilt_arrays(*numbers), spoilt_metrics(**said)),
            evaluate=spoilt_metrics(**{"num-examples": held, "correct": correct, "loss": nll}),
            query=declares(images) if images >= 0 else None,
        )  # fmt: skip
        check(folder, form, dtype, lines)


FACTORS = {"A = B": (3e38, 3e38), "one entry": (0.0, 3e38), "at the edge": (170.0, 170.0)}


@pytest.mark.parametrize("others", [None, unmoved, abstains])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("numbers", list(FACTORS.values()), ids=list(FACTORS))
def test_factors_whose_product_overflows_are_refused_or_borne(tmp_path, numbers, dtype, others):
    """With no bound on the norm, and where nobody else has a say in one."""
    lines = run(
        tmp_path, "lowrank", dtype=dtype, clip_factor=0.0, others=others,
        train=spoilt_arrays(*numbers),
    )  # fmt: skip
    check(tmp_path, "lowrank", dtype, lines)
    if max(numbers) > 1e30:
        (verdict,) = [v for v in lines[1]["verdicts"] if v["site"] == BAD]
        assert not verdict["accepted"]
        assert verdict["reasons"] == ["norm" if dtype == "float32" else "not-finite"]
        assert lines[1]["strikes"] == {str(BAD): 1}


@pytest.mark.parametrize("others", [None, abstains])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("number", [3e38, 65_000.0, 60_000.0])
def test_an_absurd_b_of_a_fresh_basis_is_refused_or_borne(tmp_path, number, dtype, others):
    lines = run(
        tmp_path, "matrix", rule="fresh-basis", dtype=dtype, clip_factor=0.0, others=others,
        train=spoilt_arrays(number, -number),
    )  # fmt: skip
    check(tmp_path, "matrix", dtype, lines)
    reasons = {v["site"]: v["reasons"] for v in lines[1]["verdicts"]}
    assert (BAD in reasons) == (number > 64_000)


@pytest.mark.parametrize("loss", [1.7e308, 1e308, 1e7, -1.0])
def test_a_loss_that_no_images_can_give_is_a_strike(tmp_path, loss):
    said = functools.partial(spoilt_metrics, loss=loss)
    lines = run(tmp_path, "full", train=said(), evaluate=said(), evaluate_every=1, quarantine=0)
    check(tmp_path, "full", "float32", lines)
    for line in lines[1:]:
        assert [(v["site"], v["reasons"]) for v in line["verdicts"]] == [(BAD, ["out-of-range"])]
        told = [(v["site"], v["reasons"]) for v in line["evaluation_verdicts"]]
        assert told == [(BAD, ["out-of-range"])]
    assert lines[-1]["strikes"] == {str(BAD): 2 * ROUNDS + 1}


@pytest.mark.parametrize("strategy", ["fedavgm", "fedadam", "fedavg"])
def test_an_optimiser_cannot_carry_the_prompt_out_of_range(tmp_path, strategy):
    """Momentum adds up what passes the gate; the merged prompt stays within its limit."""
    lines = run(
        tmp_path, "full", strategy=strategy, dtype="float16", clip_factor=0.0, rounds=2,
        momentum=0.99, learning_rate=1e9, others=spoilt_arrays(60_000.0, -60_000.0),
        train=spoilt_arrays(59_000.0, 1.0), quarantine=0,
    )  # fmt: skip
    check(tmp_path, "full", "float16", lines)
    assert [v["reasons"] for v in lines[-1]["verdicts"]] == [["copied"]] * (SITES - 2)


def test_a_rate_at_which_every_site_diverges_is_named_with_a_way_out(tmp_path):
    far = spoilt_arrays(3e38, 1.0)
    with pytest.raises(QuorumError) as caught:
        run(tmp_path, "full", train=far, others=far, quarantine=0)
    assert "begin anew with a lower fit.learning_rate" in str(caught.value)
    assert "continue with --resume" not in str(caught.value)
    assert str(caught.value).count("largest number is 3e+38") == 1  # told once for all sites
