"""No finite number that a site says may end a run, or leave one in it that is not finite (F01).

One site of eight is hostile. Whatever it says, at the door, of where to start, of its training or
of its scores, every round is committed, every committed prompt is finite in the wire's dtype, what
is refused is a strike, no other site suffers, and every reader of the record can read it.
"""

import json
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedprompt.errors import QuorumError
from fedprompt.prompts.domain_names import domain_of
from fedprompt.settings.privacy import PrivacyConfig
from fedprompt.wire import to_array_record
from server.merge.privacy.mechanism import Mechanism
from server.merge.robust import LEAST
from server.merge.strategies import STRATEGIES
from server.run_folder.checkpoint import load_latest
from server.run_folder.metrics import RunCollector
from server.run_folder.report.page import render
from server.run_folder.report.run import read_run
from tests.sites import (
    abstains,
    client,
    config,
    in_turn,
    run,
    says,
    sends,
    shows,
    start,
    task,
    unmoved,
)

SITES, BAD, ROUNDS = 8, 2, 2
HALF, SINGLE = float(np.finfo(np.float16).max), float(np.finfo(np.float32).max)
EDGES = (0.0, 5e-324, 1e-45, 1.0, 31_999.0, 32_001.0, HALF, 1e19, 2e19, 1e38, SINGLE, 1.7e308)
EDGES = tuple(sign * edge for edge in EDGES for sign in (1, -1))
NUMBERS = st.sampled_from(EDGES) | st.floats(allow_nan=False, allow_infinity=False)
SINGLES = st.floats(width=32, allow_nan=False, allow_infinity=False) | st.sampled_from(
    tuple(edge for edge in EDGES if abs(edge) <= SINGLE)
)
WHOLE = st.integers(-(2**63), 2**63 - 1) | st.sampled_from((0, 1, 99, 100, 101, 2**53, 2**63 - 1))
# what the hostile site says, but for its arrays
WORDS = st.fixed_dictionaries(
    {
        "count": st.none() | WHOLE | NUMBERS,
        "loss": st.none() | NUMBERS,
        "scores": st.tuples(WHOLE, WHOLE, NUMBERS),
        "images": WHOLE,
    }
)
DTYPES = st.sampled_from(("float32", "float16"))
FACTORS = st.sampled_from((0.0, 5.0))
PLAIN = [name for name in STRATEGIES if name not in LEAST]


def prompt(form):
    """Return a task that starts from factors, or from a full matrix beside a scalar."""
    if form == "lowrank":
        return task(start(rank=2))
    matrix = {"ctx": start()["ctx.A"] @ np.ones((1, 32), np.float32)}
    return task(matrix if form == "matrix" else matrix | {"scale": np.float32([1.0])})


def filled(fill, entry):
    """Return a change of arrays to one number, their first entry to another."""

    def change(arrays):
        found = {name: np.full(array.shape, fill, np.float32) for name, array in arrays.items()}
        for array in found.values():
            array.flat[0] = entry
        return found

    return change


def absurd(words):
    """Return the spoilers of what a site says in training, in evaluation and at the door."""
    held, correct, loss = words["scores"]
    told = {"num-examples": words["count"], "loss": words["loss"]}
    return {
        "train": says(**{key: value for key, value in told.items() if value is not None}),
        "evaluate": says(**{"num-examples": held, "correct": correct, "loss": loss}),
        "query": shows(**{"num-examples": max(0, words["images"])}),
    }


def play(folder, told, hostile, *, honest=None, each=None, centres=None, private=False, **chosen):
    """Run a task with one hostile site; return the record.

    Replies are spoilt by their kind, "query", "start", "train" or "evaluate": first as ``each``
    says of a site, which makes a toy's reply one of such a task, then by ``hostile`` or ``honest``.
    """
    chosen = config(folder, **{"rounds": ROUNDS, "quorum": 0.2} | chosen)
    told = replace(told, averaged=chosen.rule != "factors")
    spoilt = {kind: {} for kind in ("query", "start", "train", "evaluate")}
    for site in range(SITES):
        spoilers = [each(site) if each else {}, hostile if site == BAD else honest or {}]
        for kind, by_site in spoilt.items():
            by_site[site] = in_turn(*(found[kind] for found in spoilers if kind in found))
    secret = PrivacyConfig(noise_multiplier=1.0, epsilon=100.0)
    mechanism = Mechanism(secret, chosen, told.run) if private else None
    return run(client(centres=centres, **spoilt), SITES, told, chosen, mechanism=mechanism)[1]


def check(folder, told, dtype, lines):
    """Check what was committed, who was struck, and that everybody can read it."""
    assert [line["round"] for line in lines] == list(range(ROUNDS + 1))
    state = load_latest(folder / "checkpoints", told.run)
    assert state.round == ROUNDS
    for name, array in [*state.arrays.items(), *state.optimiser.items()]:
        assert np.isfinite(array).all(), name
    for name, array in state.arrays.items():
        assert array.astype(dtype).astype(np.float32).tobytes() == array.tobytes(), name
    keys = ("start_verdicts", "verdicts", "evaluation_verdicts")
    for line in lines:
        refused = [v for key in keys for v in line.get(key, ()) if not v["accepted"]]
        refused = [v for v in refused if v["reasons"] != ["copied"]]
        assert {v["site"] for v in refused} <= {BAD}, refused
        assert not refused or line["strikes"].keys() == {str(BAD)}
    for text in (folder / "rounds.jsonl").read_text().splitlines():
        json.loads(text, parse_constant=pytest.fail)
    render(read_run(folder))
    assert list(RunCollector(folder).collect())


def on_a_basis(_):
    """Return what makes a toy's reply one under fresh-basis: B of its update alone."""
    return {"train": sends(lambda _: {"ctx.B": np.zeros((2, 32), np.float32)})}


def of_rule(rule, form):
    """Return the task of a form under a rule, and what makes a toy's reply fit it."""
    if rule != "fresh-basis":
        return prompt(form), None
    return replace(prompt("matrix"), reply={"ctx.B": np.zeros((2, 32), np.float32)}), on_a_basis


CASES = [
    *[(name, "product", False) for name in STRATEGIES],
    *[(name, "shared-basis", False) for name in STRATEGIES],
    *[(name, "factors", False) for name in PLAIN],
    *[(name, "fresh-basis", False) for name in STRATEGIES],
    *[(name, "product", True) for name in PLAIN],
]


@pytest.mark.slow
@settings(max_examples=50)
@given(
    case=st.sampled_from(CASES),
    form=st.sampled_from(("lowrank", "full")),
    dtype=DTYPES,
    factor=FACTORS,
    others=st.sampled_from((None, unmoved, abstains)),
    numbers=st.tuples(SINGLES, SINGLES),
    words=WORDS,
)
def test_any_finite_numbers_are_borne(case, form, dtype, factor, others, numbers, words):
    name, rule, private = case
    robust = name in LEAST
    told, each = of_rule(rule, form)
    hostile = absurd(words)
    hostile["train"] = in_turn(sends(filled(*numbers)), hostile["train"])
    with tempfile.TemporaryDirectory() as scratch:
        lines = play(
            Path(scratch), told, hostile, each=each, private=private,
            honest={"train": others} if others and not robust else None,
            strategy=name, rule=rule, dtype=dtype, clip_factor=factor, byzantine=int(robust),
        )  # fmt: skip
        check(Path(scratch), told, dtype, lines)


DOMAINS = ("ink", "photo")


def of_domains(form):
    """Return a task whose domains are kept apart (ADAPT)."""
    rng = np.random.default_rng(3)
    shapes = {"text.0": (4, 32), "text.1": (4, 32), "visual": (2, 48)}
    if form == "lowrank":
        sides = {"A": (4, 2), "B": (2, 32)}
        shapes = {f"text.{i}.{side}": shape for i in range(2) for side, shape in sides.items()}
        shapes |= {"visual.A": (2, 1), "visual.B": (1, 48)}
    drawn = {
        n: rng.normal(scale=0.02, size=shape).astype(np.float32) for n, shape in shapes.items()
    }
    return replace(task(drawn), domains=DOMAINS)


def in_domain(alone):
    """Return what makes a toy's replies those of sites of two domains; the hostile one's alone?"""

    def each(site):
        own = int(site == BAD if alone else site % 2)
        mine = (None, own)
        return {
            "query": shows(domain=DOMAINS[own]),
            "train": sends(
                lambda arrays: {n: a for n, a in arrays.items() if domain_of(n) in mine}
            ),
        }

    return each


@pytest.mark.slow
@settings(max_examples=50)
@given(
    strategy=st.sampled_from(PLAIN),
    rule=st.sampled_from(("product", "shared-basis", "factors")),
    form=st.sampled_from(("lowrank", "full")),
    dtype=DTYPES,
    factor=FACTORS,
    alone=st.booleans(),
    others=st.sampled_from((None, unmoved, abstains)),
    numbers=st.tuples(SINGLES, SINGLES),
    words=WORDS,
)
def test_any_finite_numbers_are_borne_in_a_domains_prompt(
    strategy, rule, form, dtype, factor, alone, others, numbers, words
):
    told, hostile = of_domains(form), absurd(words)
    hostile["train"] = in_turn(sends(filled(*numbers)), hostile["train"])
    with tempfile.TemporaryDirectory() as scratch:
        lines = play(
            Path(scratch), told, hostile, each=in_domain(alone),
            honest={"train": others} if others else None,
            strategy=strategy, rule=rule, dtype=dtype, clip_factor=factor,
        )  # fmt: skip
        check(Path(scratch), told, dtype, lines)


LAYERS = {f"visual.{i}": (4, 16) for i in range(2)}


def of_centres():
    """Return a task that starts from the sites' centres (SPT)."""
    told = task({name: np.zeros(shape, np.float32) for name, shape in LAYERS.items()})
    return replace(told, asks_start=True)


def drawn(site):
    """Return an honest site's centres."""
    rng = np.random.default_rng(site)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in LAYERS.items()}


def all_zero(site):
    """Return the centres of a site whose images tell nothing."""
    return {name: np.zeros_like(array) for name, array in drawn(site).items()}


def as_good_as_zero(site):
    """Return centres that differ by the least that float32 can hold."""
    least = np.float32(1e-45) * np.float32(site + 1)
    return {name: np.full_like(array, least) for name, array in drawn(site).items()}


@pytest.mark.slow
@settings(max_examples=50)
@given(
    dtype=DTYPES,
    factor=FACTORS,
    others=st.sampled_from((drawn, all_zero, as_good_as_zero)),
    imageless=st.booleans(),
    numbers=st.tuples(SINGLES, SINGLES),
    words=WORDS,
)
def test_any_finite_numbers_are_borne_as_centres(dtype, factor, others, imageless, numbers, words):
    told, hostile = of_centres(), absurd(words)
    hostile["start"] = hostile["train"] = in_turn(sends(filled(*numbers)), hostile["train"])
    nothing = {"start": abstains, "train": abstains} if imageless else None

    with tempfile.TemporaryDirectory() as scratch:
        folder, lines = Path(scratch), []
        with suppress(QuorumError):  # where nobody else has images to start from
            lines = play(
                folder, told, hostile, honest=nothing, dtype=dtype, clip_factor=factor,
                centres=lambda site: to_array_record(others(site), dtype),
            )  # fmt: skip
        assert lines or imageless
        if lines:
            check(folder, told, dtype, lines)


WIDE = {"A = B": (3e38, 3e38), "one entry": (0.0, 3e38), "at the edge": (170.0, 170.0)}


@pytest.mark.parametrize("others", [None, unmoved, abstains])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("numbers", list(WIDE.values()), ids=list(WIDE))
def test_factors_whose_product_overflows_are_refused_or_borne(tmp_path, numbers, dtype, others):
    """With no bound on the norm, and where nobody else has a say in one."""
    told = prompt("lowrank")
    honest = {"train": others} if others else None
    hostile = {"train": sends(filled(*numbers))}
    lines = play(tmp_path, told, hostile, honest=honest, dtype=dtype, clip_factor=0.0)
    check(tmp_path, told, dtype, lines)
    if max(numbers) > 1e30:
        (verdict,) = [v for v in lines[1]["verdicts"] if v["site"] == BAD]
        assert not verdict["accepted"]
        assert verdict["reasons"] == ["norm" if dtype == "float32" else "not-finite"]
        assert lines[1]["strikes"] == {str(BAD): 1}


@pytest.mark.parametrize("others", [None, abstains])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("number", [3e38, 65_000.0, 60_000.0])
def test_an_absurd_b_of_a_fresh_basis_is_refused_or_borne(tmp_path, number, dtype, others):
    told, each = of_rule("fresh-basis", "matrix")
    lines = play(
        tmp_path, told, {"train": sends(filled(number, -number))}, each=each,
        honest={"train": others} if others else None, rule="fresh-basis", dtype=dtype,
        clip_factor=0.0,
    )  # fmt: skip
    check(tmp_path, told, dtype, lines)
    reasons = {v["site"]: v["reasons"] for v in lines[1]["verdicts"]}
    assert (BAD in reasons) == (number > 64_000)


@pytest.mark.parametrize("loss", [1.7e308, 1e308, 1e7, -1.0])
def test_a_loss_that_no_images_can_give_is_a_strike(tmp_path, loss):
    told, said = prompt("full"), says(loss=loss)
    hostile = {"train": said, "evaluate": said}
    lines = play(tmp_path, told, hostile, evaluate_every=1, quarantine=0)
    check(tmp_path, told, "float32", lines)
    for line in lines[1:]:
        assert [(v["site"], v["reasons"]) for v in line["verdicts"]] == [(BAD, ["out-of-range"])]
        found = [(v["site"], v["reasons"]) for v in line["evaluation_verdicts"]]
        assert found == [(BAD, ["out-of-range"])]
    assert lines[-1]["strikes"] == {str(BAD): 2 * ROUNDS + 1}


@pytest.mark.parametrize("strategy", ["fedavgm", "fedadam", "fedavg"])
def test_an_optimiser_cannot_carry_the_prompt_out_of_range(tmp_path, strategy):
    """Momentum adds up what passes the gate; the merged prompt stays within its limit."""
    told = prompt("full")
    lines = play(
        tmp_path, told, {"train": sends(filled(59_000.0, 1.0))},
        honest={"train": sends(filled(60_000.0, -60_000.0))}, strategy=strategy, dtype="float16",
        clip_factor=0.0, rounds=2, momentum=0.99, learning_rate=1e9, quarantine=0,
    )  # fmt: skip
    check(tmp_path, told, "float16", lines)
    assert [v["reasons"] for v in lines[-1]["verdicts"]] == [["copied"]] * (SITES - 2)


def test_a_rate_at_which_every_site_diverges_is_named_with_a_way_out(tmp_path):
    far = {"train": sends(filled(3e38, 1.0))}
    with pytest.raises(QuorumError) as caught:
        play(tmp_path, prompt("full"), far, honest=far, quarantine=0)
    assert "begin anew with a lower fit.learning_rate" in str(caught.value)
    assert "continue with --resume" not in str(caught.value)
    assert str(caught.value).count("largest number is 3e+38") == 1  # told once for all sites
