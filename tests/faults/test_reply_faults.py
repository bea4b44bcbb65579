"""Hostile and broken sites as real ClientApps: one test for each F-number of the gate.

Every run here has four sites; one or more misbehave, the round goes on and names them.
"""

import json
import threading

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord

from fedprompt.errors import QuorumError
from fedprompt.wire import RAW, identity_digest, receipt, to_array_record
from server.rounds.local_grid import LocalGrid
from server.rounds.loop import Rounds
from tests import round_lines
from tests.sites import ENROLLED, IDENTITY, client, config, repack, stamp, start, task

SITES = 4
BAD = 2  # the partition that misbehaves


def run(folder, arrays=None, settings=None, sites=SITES, workers=1, **spoilt):
    """Run two rounds and return the final state and the record's lines."""
    chosen = config(folder, **({"rounds": 2} | (settings or {})))
    with LocalGrid(client(**spoilt), sites, {}, workers) as grid:
        state = Rounds(grid, task(arrays), chosen, sites).run()
    return state, round_lines.read(folder)


def metrics(**changes):
    """Return a spoiler that changes entries of the reply's metrics."""

    def spoil(message, reply):
        reply["metrics"] = MetricRecord(dict(reply["metrics"]) | changes)
        return reply

    return spoil


def arrays(change):
    """Return a spoiler that replaces the reply's arrays."""
    return lambda message, reply: repack(reply, change)


def raw(name, dtype, shape, data, stype=RAW):
    """Return a spoiler that replaces one array as it stands on the wire."""

    def spoil(message, reply):
        reply["arrays"][name] = Array(dtype=dtype, shape=shape, stype=stype, data=data)
        return reply

    return spoil


def assert_refused(folder, spoil, reason, settings=None):
    """Check that the bad site is refused by name, struck, and without any effect."""
    state, lines = run(folder / "bad", settings=settings, train={BAD: spoil})
    for line in lines[1:]:
        assert line["accepted"] == [0, 1, 3]
        assert [(v["site"], v["reasons"]) for v in line["verdicts"]] == [(BAD, [reason])]
    assert lines[-1]["strikes"] == {str(BAD): 2}
    without = _without(folder / "without", settings)
    for name, array in state.arrays.items():
        assert array.tobytes() == without[name]  # as if it had never answered


_WITHOUT: dict[str, dict[str, bytes]] = {}  # by settings


def _without(folder, settings):
    """Return the prompt of a run in which the bad site never answers."""
    key = json.dumps(settings, sort_keys=True)
    if key not in _WITHOUT:
        state, _ = run(folder, settings=settings, train={BAD: _raise})
        _WITHOUT[key] = {name: array.tobytes() for name, array in state.arrays.items()}
    return _WITHOUT[key]


def _raise(message, reply):
    raise RuntimeError("no such file")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_F01_nan_or_infinity_is_refused(tmp_path, value):
    def change(found):
        spoilt = found["ctx.B"].copy()
        spoilt[0, 3] = value
        return found | {"ctx.B": spoilt}

    assert_refused(tmp_path, arrays(change), "not-finite")


def test_F01_overflow_in_half_precision_is_refused(tmp_path):
    spoil = arrays(lambda a: {n: x * np.float32(1e9) for n, x in a.items()})
    assert_refused(tmp_path, spoil, "not-finite", {"dtype": "float16"})


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (arrays(lambda a: a | {"ctx.B": a["ctx.B"][:, :1]}), "wrong-shape"),  # would broadcast
        (arrays(lambda a: a | {"ctx.B": a["ctx.B"][0]}), "wrong-shape"),
        (arrays(lambda a: a | {"ctx.A": np.ones((4, 2), np.float32)}), "wrong-shape"),
        (arrays(lambda a: a | {"extra": a["ctx.A"]}), "extra-array"),
        (arrays(lambda a: {"ctx.A": a["ctx.A"]}), "missing-array"),
        (arrays(lambda a: {"ctx.A": a["ctx.A"], "ctx.b": a["ctx.B"]}), "missing-array"),
        (raw("ctx.A", "float64", (4, 1), bytes(32)), "wrong-dtype"),
        (raw("ctx.A", "float32", (4, 1), bytes(16), "numpy.ndarray"), "wrong-dtype"),
    ],
)
def test_F02_wrong_shape_dtype_or_key_is_refused(tmp_path, spoil, reason):
    assert_refused(tmp_path, spoil, reason)


@pytest.mark.parametrize(
    "extra",
    [
        {"metrics2": MetricRecord({"x": 1})},
        {"info": ConfigRecord({"site": "a"})},
        {"more": ArrayRecord()},
    ],
)
def test_F02_other_records_are_refused(tmp_path, extra):
    def spoil(message, reply):
        for name, entry in extra.items():
            reply[name] = entry
        return reply

    assert_refused(tmp_path, spoil, "malformed")


def test_F02_other_metrics_are_refused(tmp_path):
    assert_refused(tmp_path, metrics(accuracy=1.0), "malformed")


@pytest.mark.parametrize("size", [0, 12, 20, 160])
def test_F03_payload_of_another_size_than_declared_is_refused(tmp_path, size):
    assert_refused(tmp_path, raw("ctx.A", "float32", (4, 1), bytes(size)), "wrong-size")


def test_F03_header_bomb_is_refused_before_allocating(tmp_path):
    bomb = raw("ctx.A", "float32", (10**5, 10**5), bytes(16))
    assert_refused(tmp_path, bomb, "wrong-shape")


def test_F04_oversized_message_is_refused(tmp_path):
    assert_refused(tmp_path, raw("ctx.A", "float32", (4, 1), bytes(10**6)), "oversized")


def test_F04_oversized_metrics_are_refused(tmp_path):
    assert_refused(tmp_path, metrics(loss=[0.5] * 10**5), "oversized")


def _scaled(factor):
    def change(found):
        return {"ctx.A": found["ctx.A"], "ctx.B": found["ctx.B"] * np.float32(factor)}

    return arrays(change)


@pytest.mark.parametrize("factor", [10, 100, 1e3, 1e6, 1e30])
def test_F05_a_blown_up_update_is_clipped_or_refused(tmp_path, factor):
    clean, _ = run(tmp_path / "clean", settings={"rounds": 1})
    state, lines = run(tmp_path / "bad", settings={"rounds": 1}, train={BAD: _scaled(factor)})
    reasons = [(v["site"], v["reasons"]) for v in lines[1]["verdicts"]]
    assert reasons == [(BAD, ["clipped" if factor <= 100 else "norm"])]
    moved = _norm(state.arrays) / _norm(clean.arrays)
    assert moved < 3  # the plain mean of four would move 2.5 times at x10 and 2.5e29 at x1e30


def test_F05_the_plain_mean_is_what_the_bound_protects_from(tmp_path):
    """Switched off, one site of four takes the prompt with it: the attack is real."""
    off = {"rounds": 1, "clip_factor": 0.0}
    clean, _ = run(tmp_path / "clean", settings=off)
    state, _ = run(tmp_path / "bad", settings=off, train={BAD: _scaled(1e6)})
    assert _norm(state.arrays) / _norm(clean.arrays) > 1e4


def _norm(found):
    return float(np.linalg.norm(found["ctx.A"].astype(float) @ found["ctx.B"]))


@pytest.mark.parametrize("count", [-25, -1, 0.5, float("nan"), 1e12])
def test_F06_an_invalid_count_is_refused(tmp_path, count):
    assert_refused(tmp_path, metrics(**{"num-examples": count}), "bad-count")


def test_F06_a_huge_count_weighs_no_more_than_enrolled(tmp_path):
    huge, lines = run(tmp_path / "huge", train={BAD: metrics(**{"num-examples": 10**12})})
    full, _ = run(tmp_path / "full", train={BAD: metrics(**{"num-examples": ENROLLED})})
    assert [v["reasons"] for v in lines[1]["verdicts"]] == [["capped"]]
    assert huge.arrays["ctx.B"].tobytes() == full.arrays["ctx.B"].tobytes()


def test_F06_no_examples_abstains_without_harm(tmp_path):
    def spoil(message, reply):
        reply = arrays(lambda a: {n: x * np.float32(np.nan) for n, x in a.items()})(message, reply)
        return metrics(**{"num-examples": 0, "loss": float("nan")})(message, reply)

    state, lines = run(tmp_path / "some", train={BAD: spoil})
    assert lines[1]["accepted"] == [0, 1, 2, 3]
    assert [v["reasons"] for v in lines[1]["verdicts"]] == [["abstained"]]
    assert lines[1]["strikes"] == {}
    assert all(np.isfinite(a).all() for a in state.arrays.values())


def test_F06_a_round_in_which_all_abstain_keeps_the_prompt(tmp_path):
    nobody = dict.fromkeys(range(SITES), metrics(**{"num-examples": 0}))
    state, lines = run(tmp_path, train=nobody, settings={"strategy": "fedadam"})
    assert [line["loss"] for line in lines[1:]] == [None, None]
    for name, array in start().items():
        assert state.arrays[name].tobytes() == array.tobytes()


def test_F11_a_replayed_reply_is_stale(tmp_path):
    seen = {}

    def replay(message, reply):
        return seen.setdefault("first", reply)

    _, lines = run(tmp_path, train={BAD: replay})
    assert [v["reasons"] for v in lines[1]["verdicts"]] == []
    assert [(v["site"], v["reasons"]) for v in lines[2]["verdicts"]] == [(BAD, ["stale"])]


def test_F11_a_reply_of_another_run_is_refused(tmp_path):
    foreign = receipt("another run", 1, BAD, identity_digest(IDENTITY))
    assert_refused(tmp_path, metrics(receipt=foreign), "identity")


def test_F11_a_reply_of_another_site_is_refused(tmp_path):
    def spoil(message, reply):
        return metrics(receipt=stamp(message, 0))(message, reply)

    assert_refused(tmp_path, spoil, "identity")


class Stuttering(LocalGrid):
    """Deliver every reply of a round twice."""

    def pull_messages(self, message_ids):
        replies = list(super().pull_messages(message_ids))
        for reply in replies:
            self._sizes[reply.metadata.reply_to_message_id] = 1
        return replies + replies

    def size(self, reply):
        return 1000


def test_F11_a_duplicated_reply_is_counted_once(tmp_path):
    once, _ = run(tmp_path / "once")
    with Stuttering(client(), SITES, {}) as grid:
        twice = Rounds(grid, task(), config(tmp_path / "twice", rounds=2), SITES).run()
    lines = round_lines.read(tmp_path / "twice")
    assert [v["reasons"] for v in lines[1]["verdicts"]] == [["duplicate"]] * SITES
    assert lines[1]["accepted"] == [0, 1, 2, 3]
    assert twice.arrays["ctx.B"].tobytes() == once.arrays["ctx.B"].tobytes()


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        pytest.param("backbone", "c" * 64, ["c" * 64, "b" * 64], id="F12-backbone"),
        pytest.param("tokenizer", "x" * 64, ["x" * 64, "t" * 64], id="F12-tokenizer"),
        pytest.param("classes", '["dog","cat"]', ["class 0", "dog", "cat"], id="F13-order"),
        pytest.param("classes", '["cat"]', ["1 classes", "has 2"], id="F13-fewer"),
        pytest.param("version", "0.0.9", ["0.0.9", "0.1.0"], id="F14-version"),
    ],
)
def test_F12_F13_F14_another_identity_is_refused_at_the_door(tmp_path, key, value, told):
    def spoil(message, reply):
        reply["identity"] = ConfigRecord(dict(reply["identity"]) | {key: value})
        return reply

    chosen = config(tmp_path, rounds=1)
    with LocalGrid(client(query={BAD: spoil}), SITES, {}) as grid:
        Rounds(grid, task(), chosen, SITES - 1).run()
    first, second = round_lines.read(tmp_path)
    assert first["joined"] == second["asked"] == [0, 1, 3]
    (refused,) = first["refused"]
    assert (refused["site"], refused["reasons"]) == (BAD, ["identity"])
    assert all(part in refused["detail"] for part in told)


def test_F12_nobody_fits_ends_the_run_with_both_hashes(tmp_path):
    other = client(identity=IDENTITY | {"backbone": "c" * 64})
    with (
        LocalGrid(other, SITES, {}) as grid,
        pytest.raises(QuorumError, match=r"0 of 4 sites joined.*c{64}, the server has b{64}"),
    ):
        Rounds(grid, task(), config(tmp_path, join_deadline=60), SITES).run()
    assert not list(tmp_path.glob("checkpoints/*"))


def test_F12_an_identity_that_changes_after_the_door_is_refused(tmp_path):
    def spoil(message, reply):
        forged = IDENTITY | {"backbone": "c" * 64}
        return metrics(receipt=stamp(message, BAD, forged))(message, reply)

    assert_refused(tmp_path, spoil, "identity")


def test_F18_a_straggler_is_named_and_the_round_goes_on(tmp_path):
    release = threading.Event()  # the site answers when the run is over, and not before

    def hang(message, reply):
        release.wait()
        return reply

    settings = {"deadline": 5.0, "rounds": 1, "evaluate_every": 0}
    try:
        _, lines = run(tmp_path, settings=settings, workers=SITES, train={BAD: hang})
    finally:
        release.set()
    assert lines[1]["accepted"] == [0, 1, 3]
    assert [(v["site"], v["reasons"]) for v in lines[1]["verdicts"]] == [(BAD, ["timeout"])]
    assert lines[1]["strikes"] == {}


def test_F18_a_site_that_raises_is_named(tmp_path):
    _, lines = run(tmp_path, train={BAD: _raise})
    (verdict,) = lines[1]["verdicts"]
    assert (verdict["site"], verdict["reasons"]) == (BAD, ["error"])
    assert "no such file" in verdict["detail"]


def test_F19_below_quorum_keeps_the_last_prompt_and_has_its_own_exit_code(tmp_path):
    def later(message, reply):
        if message.content["config"]["round"] == 2:
            raise RuntimeError("gone")
        return reply

    tries = []

    def count(message, reply):
        tries.append(message.content["config"]["round"])
        return later(message, reply)

    gone = {0: count, 1: later, 2: later}
    with pytest.raises(QuorumError, match="round 2 stayed below quorum in 3 tries") as caught:
        run(tmp_path, train=gone, settings={"rounds": 3})
    assert caught.value.exit_code == 8
    assert tries == [1, 2, 2, 2]
    assert round_lines.read(tmp_path)[-1]["round"] == 1
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["round-00000.safetensors", "round-00001.safetensors"]


def test_F19_a_round_that_recovers_is_committed(tmp_path):
    tries = []

    def once(message, reply):
        tries.append(1)
        if len(tries) <= SITES:
            raise RuntimeError("not yet")
        return reply

    _, lines = run(tmp_path, train=dict.fromkeys(range(SITES), once))
    assert [line.get("attempt") for line in lines] == [None, 1, 0]


@pytest.mark.parametrize(
    "spoil",
    [
        metrics(correct=21),
        metrics(correct=-1),
        metrics(loss=float("nan")),
        metrics(**{"num-examples": -5}),
        metrics(receipt=1),
        metrics(extra=1),
        _raise,
    ],
)
def test_a_false_evaluation_is_refused_by_name(tmp_path, spoil):
    _, lines = run(tmp_path, evaluate={BAD: spoil}, settings={"rounds": 1})
    assert sorted(lines[1]["sites"]) == ["0", "1", "3"]
    assert [v["site"] for v in lines[1]["evaluation_verdicts"]] == [BAD]
    assert lines[1]["worst_client_acc"] == 0.5


def test_an_empty_holdout_has_no_say(tmp_path):
    nothing = metrics(**{"num-examples": 0, "correct": 0, "loss": 0.0})
    _, lines = run(tmp_path, evaluate={BAD: nothing}, settings={"rounds": 1})
    assert sorted(lines[1]["sites"]) == ["0", "1", "3"]
    assert lines[1]["evaluation_verdicts"] == []


def test_a_false_evaluation_count_cannot_take_the_average_over(tmp_path):
    false = metrics(**{"num-examples": 10**12, "correct": 10**12})
    _, lines = run(tmp_path, evaluate={BAD: false}, settings={"rounds": 1})
    assert lines[1]["accuracy"] < 1.0


def test_sites_of_a_smaller_rank_take_part_under_product(tmp_path):
    """A site of rank 1 in a prompt of rank 2 needs no padding."""

    def shrink(found):
        return {"ctx.A": found["ctx.A"][:, :1], "ctx.B": found["ctx.B"][:1]}

    state, lines = run(tmp_path, arrays=start(rank=2), train={BAD: arrays(shrink)})
    assert lines[1]["accepted"] == [0, 1, 2, 3]
    assert state.arrays["ctx.A"].shape == (4, 2)


def test_sites_of_a_smaller_rank_are_refused_under_factors(tmp_path):
    def shrink(found):
        return {"ctx.A": found["ctx.A"][:, :1], "ctx.B": found["ctx.B"][:1]}

    settings = {"rule": "factors", "rounds": 1}
    _, lines = run(tmp_path, arrays=start(rank=2), settings=settings, train={BAD: arrays(shrink)})
    assert [v["reasons"] for v in lines[1]["verdicts"]] == [["wrong-shape"]]


def test_the_record_is_plain_json(tmp_path):
    run(tmp_path, train={BAD: _raise})
    for text in (tmp_path / "rounds.jsonl").read_text().splitlines():
        line = json.loads(text)
        assert {"round", "seconds", "strikes", "prompt", "run", "nodes"} <= line.keys()


def test_half_precision_travels_both_ways(tmp_path):
    seen = []

    def spy(message, reply):
        seen.append(str(message.content["arrays"]["ctx.B"].dtype))
        reply["arrays"] = to_array_record(start(), "float16")
        return reply

    state, lines = run(tmp_path, settings={"dtype": "float16", "rounds": 1}, train={0: spy})
    assert seen == ["float16"]
    assert lines[1]["accepted"] == [0, 1, 2, 3]
    for array in state.arrays.values():
        assert array.astype(np.float16).astype(np.float32).tobytes() == array.tobytes()
