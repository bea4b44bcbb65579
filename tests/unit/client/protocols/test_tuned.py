import pytest

from client.protocols.tune import centrally


@pytest.mark.parametrize(
    ("personal", "parameters", "sent"), [("global", 36, 36), ("local", 36, 0), ("both", 72, 36)]
)
def test_a_local_prompt_is_trained_and_stays(make_trial, personal, parameters, sent):
    """On the small CLIP dip has 4 + 32 numbers; a local prompt has as many."""
    tuned = centrally(make_trial(prompt__method="dip"), "run", {"prompt.personal": personal})
    assert (tuned.size.parameters, tuned.size.sent) == (parameters, sent)
    assert tuned.size.bytes_up > 4 * sent


def test_under_a_shared_basis_b_alone_is_trained_and_sent(make_trial):
    tuned = centrally(make_trial(prompt__method="dip"), "run", {"server.rule": "shared-basis"})
    assert (tuned.size.parameters, tuned.size.sent) == (32, 32)


def test_half_as_many_bytes_in_float16(make_trial):
    trial = make_trial(prompt__method="coop")
    full = centrally(trial, "full", {}).size
    short = centrally(trial, "short", {"server.dtype": "float16"}).size
    assert full.bytes_up - short.bytes_up == pytest.approx(2 * full.sent, abs=8)
