"""Secure aggregation bears drop-outs, shows no update when it fails, and cannot overflow (F29)."""

from dataclasses import replace

import numpy as np
import pytest
from flwr.app import ConfigRecord, MetricRecord
from flwr.common import ndarray_to_bytes
from flwr.common.secure_aggregation.quantization import quantize
from hypothesis import given
from hypothesis import strategies as st

from client.reply.secure_aggregation import secured
from fedprompt.errors import ConfigError, QuorumError
from fedprompt.secure_sum import MODULUS, levels, shorten, step
from fedprompt.settings.privacy import PrivacyConfig
from fedprompt.settings.run_config import RunConfig
from fedprompt.wire import to_array_record
from server.merge.privacy import ledger
from server.merge.privacy.mechanism import Mechanism
from server.rounds.local_grid import LocalGrid
from server.rounds.loop import Rounds
from tests import round_lines
from tests.sites import client, config, start, task, unpack

SITES = 5  # three shares of five unmask
CLIP = 5.0
STEP = step(CLIP, levels(SITES))
FLOAT = 1e-6  # of float32 factors whose product is compared
KEY = "secaggplus_configs"
AGREED = {"server.secure_aggregation": True, "server.clip_norm": CLIP}
STAGES = ("setup", "share_keys", "collect_masked_vectors", "unmask")


class Tap:
    """See every train message and reply of a run, and change what one site answers."""

    def __init__(self, change=None):
        self.stages, self.sent, self.change = [], [], change or (lambda *_: None)

    def __call__(self, message, context, call_next):
        asked = message.content.config_records.get(KEY)
        stage = str(asked["stage"]) if asked else "plain"
        partition = int(context.node_config["partition-id"])
        self.stages.append((stage, partition))
        reply = call_next(message, context)
        self.change(stage, partition, reply)
        self.sent.append((stage, partition, reply))
        return reply


def run(folder, tap=None, sites=SITES, secure=True, arrays=None, privacy=None, **settings):
    """Run on a grid with the site's own mod; return the last state and the record."""
    spoilt = settings.pop("train", None)
    defaults = {"rounds": 1, "weighting": "uniform", "clip_norm": CLIP, "clip_factor": 0.0}
    chosen = config(folder, **(defaults | {"secure_aggregation": secure} | settings))
    told = task(start(rank=4) if arrays is None else arrays)
    agreed = {f"server.{k}": v for k, v in chosen.model_dump().items()}
    agreed |= {f"privacy.{k}": v for k, v in (privacy.model_dump() if privacy else {}).items()}
    mods = [tap, secured] if tap else [secured]
    with LocalGrid(client(train=spoilt, mods=mods), sites, agreed) as grid:
        mechanism = Mechanism(privacy, chosen, told.run) if privacy else None
        state = Rounds(grid, told, chosen, sites, mechanism).run()
    return state, round_lines.read(folder)


def prompt(state):
    return state.arrays["ctx.A"].astype(np.float64) @ state.arrays["ctx.B"]


def dense():
    """Return a full prompt: a site's move of it is the same from every start.

    A move of factors is not (it is multiplied by where they start), so their errors of
    rounding would grow from round to round, and no bound over several rounds would hold.
    """
    return {"ctx": start()["ctx.A"] @ np.ones((1, 32), np.float32)}


def fails(*at):
    """Return a change that raises for the (stage, site) pairs given."""

    def change(stage, partition, reply):
        if (stage, partition) in at:
            raise RuntimeError("the power is gone")

    return change


def gone(message, reply):
    raise RuntimeError("the power is gone")


def test_F29_the_mean_is_the_plain_one_up_to_a_quantiser_step(tmp_path):
    secure, lines = run(tmp_path / "secure")
    plain, _ = run(tmp_path / "plain", secure=False)
    np.testing.assert_allclose(prompt(secure), prompt(plain), atol=STEP + FLOAT, rtol=0)
    assert prompt(secure).any()
    assert lines[-1]["accepted"] == list(range(SITES))


def test_F29_two_rounds_are_off_by_two_quantiser_steps_at_most(tmp_path):
    secure, _ = run(tmp_path / "secure", arrays=dense(), rounds=2)
    plain, _ = run(tmp_path / "plain", secure=False, arrays=dense(), rounds=2)
    moved, told = secure.arrays["ctx"], plain.arrays["ctx"]
    np.testing.assert_allclose(moved, told, atol=2 * STEP + FLOAT, rtol=0)
    assert np.abs(moved - dense()["ctx"]).max() > 100 * STEP


def test_F29_no_update_leaves_a_site_unmasked(tmp_path):
    """Masked vectors are spread over all of [0, 2^32), whatever the update is."""
    tap = Tap()
    arrays = {"ctx": np.zeros((4, 1000), np.float32)}
    run(tmp_path, tap, arrays=arrays, train=dict.fromkeys(range(SITES), _still))
    assert {stage for stage, _ in tap.stages} == set(STAGES)
    for stage, _, reply in tap.sent:
        assert not any(record for record in reply.content.array_records.values())
        if stage == "collect_masked_vectors":
            vector = _vector(reply)
            middle = levels(SITES) // 2  # what an unmasked change of zero looks like
            assert (vector == middle).mean() < 0.01
            # the mean of 4,000 uniform draws, within 6.5 standard errors
            assert abs(vector.mean() / MODULUS - 0.5) < 6.5 * np.sqrt(1 / 12 / 4000)


def _vector(reply):
    data = reply.content.config_records[KEY]["masked_params"][1]
    return np.frombuffer(data[-8 * 4000 :], "<i8")


def _still(message, reply):
    reply["arrays"] = to_array_record(unpack(message), "float32")
    return reply


@pytest.mark.parametrize("stage", STAGES)
def test_F29_one_drop_out_is_recovered(tmp_path, stage):
    """It is gone from one stage on; its vector counts only if it came."""
    at = STAGES.index(stage)
    tap = Tap(fails(*((later, 1) for later in STAGES[at:])))
    secure, lines = run(tmp_path / "secure", tap)
    came = stage == "unmask"
    plain, _ = run(tmp_path / "plain", secure=False, train={} if came else {1: gone})
    np.testing.assert_allclose(prompt(secure), prompt(plain), atol=STEP + FLOAT, rtol=0)
    assert lines[1]["accepted"] == [0, 1, 2, 3, 4] if came else [0, 2, 3, 4]
    if not came:
        (verdict,) = lines[1]["verdicts"]
        assert (verdict["site"], "the power is gone" in verdict["detail"]) == (1, True)


def test_F29_two_of_five_may_drop_out(tmp_path):
    tap = Tap(fails(("collect_masked_vectors", 1), ("unmask", 1), ("collect_masked_vectors", 4)))
    secure, lines = run(tmp_path / "secure", tap)
    plain, _ = run(tmp_path / "plain", secure=False, train={1: gone, 4: gone})
    np.testing.assert_allclose(prompt(secure), prompt(plain), atol=STEP + FLOAT, rtol=0)
    assert lines[1]["accepted"] == [0, 2, 3]


def test_F29_fewer_than_the_threshold_abort_and_nothing_is_unmasked(tmp_path):
    tap = Tap(fails(*(("collect_masked_vectors", site) for site in (0, 2, 4))))
    with pytest.raises(QuorumError, match=r"2 of 5 masked vectors came, 3 needed"):
        run(tmp_path, tap, quorum=0.1, retries=1)
    assert len(round_lines.read(tmp_path)) == 1  # round 0 stays
    stages = [stage for stage, _ in tap.stages]
    assert "unmask" not in stages  # no site was ever asked for a share
    assert stages.count("setup") == 2 * SITES  # two tries


def test_F29_below_the_quorum_nothing_is_unmasked_either(tmp_path):
    tap = Tap(fails(("collect_masked_vectors", 3)))
    with pytest.raises(QuorumError, match=r"4 of 5 masked vectors came, 5 needed"):
        run(tmp_path, tap, quorum=1.0, retries=0)
    assert "unmask" not in [stage for stage, _ in tap.stages]


def test_F29_a_broken_try_is_followed_by_a_good_one(tmp_path):
    calls = []

    def change(stage, partition, reply):
        if stage == "share_keys" and len(calls) < 3:
            calls.append(partition)
            raise RuntimeError("the power is gone")

    secure, lines = run(tmp_path / "secure", Tap(change))
    plain, _ = run(tmp_path / "plain", secure=False)
    assert lines[1]["attempt"] == 1
    assert lines[1]["strikes"] == {}  # whose fault it was is not known
    np.testing.assert_allclose(prompt(secure), prompt(plain), atol=STEP + FLOAT, rtol=0)


def test_F29_a_run_resumes_between_secure_rounds(tmp_path):
    run(tmp_path / "parts", arrays=dense(), rounds=1)
    parts, lines = run(tmp_path / "parts", arrays=dense(), rounds=3, resume=True)
    whole, _ = run(tmp_path / "whole", arrays=dense(), rounds=3)
    assert [line["round"] for line in lines] == [0, 1, 2, 3]
    # not bit for bit: the quantiser rounds by chance, by a step a round in each of the two runs
    resumed, told = parts.arrays["ctx"], whole.arrays["ctx"]
    np.testing.assert_allclose(resumed, told, atol=6 * STEP + FLOAT, rtol=0)


@given(st.integers(3, 65535))
def test_F29_no_number_of_sites_can_overflow(sites):
    """Every site at the end of the range, rounded up: the sum stays below the modulus.

    One level more than the highest allows for the quantiser's own float rounding.
    """
    steps = levels(sites)
    assert steps >= 2**16
    assert sites * (steps + 1) <= MODULUS - 1
    ends = [np.full(4, CLIP), np.full(4, -CLIP), np.array([CLIP, -CLIP, 0, 1e-9])]
    for part in quantize(ends, CLIP, steps):
        assert part.min() >= 0
        assert part.max() <= steps + 1


def test_F29_flowers_own_range_would_overflow():
    """What the property guards against: 2^22 levels of 1,024 sites reach the modulus."""
    assert MODULUS <= 1024 * 2**22
    assert levels(1024) == 2**21


def test_F29_too_many_sites_for_one_sum_are_refused():
    assert levels(65536) == 0


@given(st.integers(1, 3000), st.floats(1e-3, 1e3), st.floats(1e-6, 1e6), st.integers(0, 2**32 - 1))
def test_F29_rounding_never_passes_the_clip(entries, clip, size, seed):
    """The norm of what is summed: within the clip, although each entry is rounded by chance."""
    steps = levels(100)
    change = np.random.default_rng(seed).normal(scale=size, size=entries)
    (whole,) = quantize([shorten(change, clip, steps)], clip, steps)
    rounded = whole * step(clip, steps) - clip
    assert np.linalg.norm(rounded) <= clip * (1 + 1e-9)


def _pushed(size):
    def spoil(message, reply):
        moved = {n: a + np.float32(size) for n, a in unpack(message).items()}
        reply["arrays"] = to_array_record(moved, "float32")
        return reply

    return spoil


@pytest.mark.slow
def test_F29_fifty_sites_at_the_end_of_the_range(tmp_path):
    """One entry and one direction: every site adds nearly the largest whole number there is."""
    sites, arrays = 50, {"ctx": np.zeros((1, 1), np.float32)}
    pushed = dict.fromkeys(range(sites), _pushed(100.0))
    secure, lines = run(tmp_path, sites=sites, arrays=arrays, train=pushed)
    assert lines[1]["accepted"] == list(range(sites))
    assert float(secure.arrays["ctx"][0, 0]) == pytest.approx(CLIP, abs=2 * step(CLIP, levels(50)))


@pytest.mark.slow
def test_F29_fifty_sites_of_which_five_drop_out(tmp_path):
    lost = (3, 11, 19, 33, 47)
    tap = Tap(fails(*(("collect_masked_vectors", site) for site in lost)))
    secure, lines = run(tmp_path / "secure", tap, sites=50)
    plain, _ = run(tmp_path / "plain", sites=50, secure=False, train=dict.fromkeys(lost, gone))
    assert lines[1]["accepted"] == [site for site in range(50) if site not in lost]
    bound = step(CLIP, levels(50)) + FLOAT
    np.testing.assert_allclose(prompt(secure), prompt(plain), atol=bound, rtol=0)


def _metrics(**changes):
    def change(stage, partition, reply):
        if stage == "collect_masked_vectors" and partition == 2:
            reply.content["fitres.metrics"] = ConfigRecord(changes)

    return change


def _weight(value):
    def change(stage, partition, reply):
        if stage == "collect_masked_vectors" and partition == 2:
            reply.content["fitres.num_examples"] = MetricRecord({"num_examples": value})

    return change


def _part(stage_name, key, value):
    def change(stage, partition, reply):
        if stage == stage_name and partition == 2:
            reply.content.config_records[KEY][key] = value

    return change


def _masked(vector):
    weight = ndarray_to_bytes(np.array([1]))
    parts = [weight, vector if isinstance(vector, bytes) else ndarray_to_bytes(vector)]
    return _part("collect_masked_vectors", "masked_params", parts)


def _extra(stage, partition, reply):
    if stage == "collect_masked_vectors" and partition == 2:
        reply.content["note"] = MetricRecord({"x": 1})


HONEST = ndarray_to_bytes(np.zeros(128, np.int64))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_metrics(receipt=7), "identity"),
        (_metrics(), "identity"),
        (_weight(1000), "bad-count"),
        (_weight(-1), "bad-count"),
        (_masked(np.zeros(1, np.int64)), "wrong-size"),  # would be broadcast into the sum
        (_masked(np.zeros(129, np.int64)), "wrong-size"),
        (_masked(np.zeros(128, np.float64)), "wrong-shape"),
        (_masked(np.zeros((2, 64), np.int64)), "wrong-shape"),
        (_masked(HONEST.replace(b"(128,)", b"(9e9,)")), "wrong-shape"),  # a header bomb
        (_masked(b""), "wrong-size"),
        (_part("collect_masked_vectors", "masked_params", [b"x"]), "malformed"),
        (_part("setup", "pk1", b"no key"), "malformed"),
        (_part("setup", "pk2", 5), "malformed"),
        (_part("share_keys", "dsts", [1000, 1000, 1001, 1003]), "malformed"),
        (_part("share_keys", "dsts", [1, 2, 3, 4]), "malformed"),
        (_part("share_keys", "ctxts", [b"x"]), "malformed"),
        (_extra, "malformed"),
    ],
)
def test_F29_a_reply_that_would_break_the_sum_is_refused(tmp_path, change, reason):
    secure, lines = run(tmp_path / "secure", Tap(change))
    plain, _ = run(tmp_path / "plain", secure=False, train={2: gone})
    assert lines[1]["accepted"] == [0, 1, 3, 4]
    (verdict,) = lines[1]["verdicts"]
    assert (verdict["site"], verdict["reasons"]) == (2, [reason])
    assert lines[1]["strikes"] == {"2": 1}
    np.testing.assert_allclose(prompt(secure), prompt(plain), atol=STEP + FLOAT, rtol=0)


@pytest.mark.parametrize("share", [b"\x01", b"\x01\x00\x00\x00" + bytes(48)])
def test_F29_false_shares_break_the_try_off_and_nothing_else(tmp_path, share):
    """A site that lies about the shares it holds spoils the sum: the sum's norm gives it away."""

    def change(stage, partition, reply):
        if stage == "unmask" and partition == 2:
            count = len(reply.content.config_records[KEY]["shares"])
            reply.content.config_records[KEY]["shares"] = [share] * count

    with pytest.raises(QuorumError, match=r"none unmasked|not one of clipped updates"):
        run(tmp_path, Tap(change), retries=0)


def test_F29_a_vector_that_is_no_clipped_update_spoils_the_try_not_the_prompt(tmp_path):
    wild = np.random.default_rng(0).integers(0, MODULUS, 128)
    with pytest.raises(QuorumError, match="not one of clipped updates"):
        run(tmp_path, Tap(_masked(wild)), retries=0)


def test_F29_updates_are_cut_at_the_site(tmp_path):
    """One site pushes a thousand times too far: it moves the mean by its share of the clip."""
    arrays = {"ctx": np.zeros((4, 32), np.float32)}
    far, _ = run(tmp_path / "far", arrays=arrays, train={2: _pushed(1e3)})
    still, _ = run(tmp_path / "still", arrays=arrays, train={2: _still})
    moved = np.linalg.norm(far.arrays["ctx"].astype(np.float64) - still.arrays["ctx"])
    # cut to CLIP less the room for rounding, and each mean is a step off per entry at most
    assert moved == pytest.approx(CLIP / SITES, abs=3 * STEP * np.sqrt(128))


def test_F29_sites_without_images_do_not_count(tmp_path):
    def abstain(message, reply):
        reply["metrics"] = MetricRecord(dict(reply["metrics"]) | {"num-examples": 0})
        return reply

    secure, lines = run(tmp_path / "secure", train={3: abstain})
    plain, _ = run(tmp_path / "plain", secure=False, train={3: abstain})
    assert [(v["site"], v["reasons"]) for v in lines[1]["verdicts"]] == [(3, ["abstained"])]
    np.testing.assert_allclose(prompt(secure), prompt(plain), atol=2 * STEP + FLOAT, rtol=0)
    nobody, _ = run(tmp_path / "all", train=dict.fromkeys(range(SITES), abstain))
    assert nobody.arrays["ctx.A"].tobytes() == start(rank=4)["ctx.A"].tobytes()


@pytest.mark.parametrize("updates", [1, 2])
def test_F29_so_few_updates_that_one_can_be_told_stay_masked(tmp_path, updates):
    """Sites without images make a quorum; the sum of the others' updates would be one's own."""

    def abstain(message, reply):
        reply["metrics"] = MetricRecord(dict(reply["metrics"]) | {"num-examples": 0})
        return reply

    tap, empty = Tap(), dict.fromkeys(range(updates, SITES), abstain)
    with pytest.raises(QuorumError, match=f"5 of 5 masked vectors came.*{updates} hold an update"):
        run(tmp_path, tap, train=empty, retries=0)
    assert "unmask" not in {stage for stage, _ in tap.stages}


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"strategy": "krum", "byzantine": 1}, "compares single updates"),
        ({"strategy": "fedmedian"}, "compares single updates"),
        ({"rule": "factors"}, "rule = factors"),
        ({"weighting": "examples"}, "weighting = uniform"),
        ({"clip_norm": 0.0}, "clip_norm = 0"),
    ],
)
def test_F29_settings_that_cannot_work_are_refused(settings, match):
    sound = {"secure_aggregation": True, "weighting": "uniform", "clip_norm": 1.0}
    RunConfig.parse({f"server.{key}": value for key, value in sound.items()})
    with pytest.raises(ConfigError, match=match):
        RunConfig.parse({f"server.{key}": value for key, value in (sound | settings).items()})


def test_F29_two_sites_are_too_few(tmp_path):
    with pytest.raises(QuorumError, match="takes 3 to 65535 sites, found 2"):
        run(tmp_path, sites=2, retries=0)


def test_F29_a_site_sends_nothing_in_the_clear(tmp_path):
    """The run agreed on masking; its server asks for plain updates."""
    chosen = config(tmp_path, rounds=1, retries=0)
    with LocalGrid(client(mods=[secured]), SITES, AGREED) as grid:
        rounds = Rounds(grid, task(start(rank=4)), chosen, SITES)
        with pytest.raises(QuorumError, match="asks for an update in the clear"):
            rounds.run()


def test_F29_F30_the_noised_mean_of_masked_updates(tmp_path):
    """Both at once: the sum is learned, noised and counted; a site is one of those asked."""
    arrays = {"ctx": np.zeros((4, 2000), np.float32)}
    private = PrivacyConfig(noise_multiplier=4.0, epsilon=100.0, clip_norm=0.5)
    tap = Tap(fails(("collect_masked_vectors", 1)))
    still = dict.fromkeys(range(SITES), _still)
    state, lines = run(tmp_path, tap, arrays=arrays, privacy=private, train=still, clip_norm=0.0)
    sigma = 4.0 * 0.5 / SITES
    assert state.arrays["ctx"].std() == pytest.approx(sigma, rel=6.5 / np.sqrt(2 * 8000))
    (release,) = ledger.read(tmp_path / "privacy.jsonl")
    assert replace(release, run="") == ledger.Release("", 1, SITES, 0.5, 4.0)
    assert lines[1]["epsilon"] > 0


def test_F29_F30_a_silent_site_does_not_make_the_others_count_more(tmp_path, monkeypatch):
    monkeypatch.setattr("server.merge.privacy.mechanism.add_noise", lambda mean, deviation: mean)
    private = PrivacyConfig(noise_multiplier=4.0, epsilon=100.0, clip_norm=CLIP)
    secure, _ = run(tmp_path / "secure", privacy=private, train={1: gone})
    plain, _ = run(tmp_path / "plain", secure=False, privacy=private, train={1: gone})
    np.testing.assert_allclose(prompt(secure), prompt(plain), atol=STEP + FLOAT, rtol=0)
