import pytest

from fedprompt.experiments.protocols.trial import harmonic_mean, mean


@pytest.mark.parametrize(("method", "numbers"), [("dip", 32), ("dip-fixed", 4 + 32)])
@pytest.mark.parametrize(
    ("personal", "trained", "sent"), [("global", 1, 1), ("local", 1, 0), ("both", 2, 1)]
)
def test_a_local_prompt_is_trained_and_stays(make_trial, method, numbers, personal, trained, sent):
    """On the small CLIP dip trains a row of 32 at a time; a local prompt has as many."""
    tuned = make_trial(prompt__method=method).train_centrally("run", {"prompt.personal": personal})
    assert (tuned.size.parameters, tuned.size.sent) == (trained * numbers, sent * numbers)
    assert 4 * tuned.size.sent < tuned.size.bytes_up < 4 * tuned.size.sent + 400
    assert tuned.form == "lowrank"


@pytest.mark.parametrize("rule", ["shared-basis", "fresh-basis"])
def test_where_a_is_not_trained_b_alone_is_counted(make_trial, rule):
    for method in ("dip", "dip-fixed"):
        changes = {"server.rule": rule, "prompt.rank": 2}
        tuned = make_trial(prompt__method=method).train_centrally(method, changes)
        assert (tuned.size.parameters, tuned.size.sent) == (2 * 32, 2 * 32)


def test_a_full_matrix_is_sent_whole_under_every_rule(make_trial):
    tuned = make_trial(prompt__method="coop").train_centrally("run", {"server.rule": "fresh-basis"})
    assert (tuned.size.parameters, tuned.size.sent, tuned.form) == (128, 128, "full")


def test_half_as_many_bytes_in_float16(make_trial):
    trial = make_trial(prompt__method="coop")
    full = trial.train_centrally("full", {}).size
    short = trial.train_centrally("short", {"server.dtype": "float16"}).size
    assert full.bytes_up - short.bytes_up == pytest.approx(2 * full.sent, abs=8)


@pytest.mark.parametrize(
    ("pair", "expected"),
    [((0.8, 0.4), 0.5333333), ((0.5, 0.5), 0.5), ((0.0, 0.0), 0.0), ((None, 0.4), None)],
)
def test_the_harmonic_mean(pair, expected):
    assert harmonic_mean(*pair) == (expected and pytest.approx(expected))


def test_a_mean_with_a_gap_is_none():
    assert mean({"a": 0.5, "b": 0.25}) == 0.375
    assert mean({"a": 0.5, "b": None}) is None
    assert mean({}) is None
