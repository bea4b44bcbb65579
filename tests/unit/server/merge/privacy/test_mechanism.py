import numpy as np
import pytest

from fedprompt.errors import PrivacyError
from fedprompt.settings.privacy import PrivacyConfig
from server.merge.privacy import ledger
from server.merge.privacy.mechanism import Mechanism
from tests.sites import config

CURRENT = {"x": np.zeros((2, 3))}


def mechanism(folder, **settings):
    chosen = PrivacyConfig(**({"noise_multiplier": 2.0, "epsilon": 5.0} | settings))
    return Mechanism(chosen, config(folder), "run")


def test_a_release_is_in_the_ledger_with_all_it_takes_to_account(tmp_path):
    found = mechanism(tmp_path).release([CURRENT], CURRENT, 3, 8)
    assert found["x"].shape == (2, 3)
    entry = ledger.Release("run", 3, 8, 1.0, 2.0)
    assert ledger.read(tmp_path / "privacy.jsonl") == [entry]


def test_the_noise_is_scaled_to_the_share_of_one_site(tmp_path, monkeypatch):
    found = []
    where = "server.merge.privacy.mechanism.add_noise"
    monkeypatch.setattr(where, lambda m, d: found.append(d) or m)
    mechanism(tmp_path, clip_norm=0.5).release([CURRENT], CURRENT, 1, 4)
    assert found == [2.0 * 0.5 / 4]


def test_a_spent_budget_is_told_before_and_at_the_release(tmp_path):
    spender = mechanism(tmp_path, epsilon=2.0)
    spender.check()
    spender.release([CURRENT], CURRENT, 1, 4)
    with pytest.raises(PrivacyError, match="release 2 would cost"):
        spender.check()
    with pytest.raises(PrivacyError, match="release 2 would cost"):
        spender.release([CURRENT], CURRENT, 2, 4)
    assert len(ledger.read(tmp_path / "privacy.jsonl")) == 1


def test_the_statement_says_what_was_spent_and_what_it_means(tmp_path):
    spender = mechanism(tmp_path)
    assert spender.statement()["epsilon"] == 0
    spender.release([CURRENT], CURRENT, 1, 4)
    told = spender.statement()
    assert told["epsilon"] == spender.spent() == pytest.approx(1.9931, abs=1e-3)
    assert (told["releases"], told["unit"], told["amplification"]) == (1, "site", "none")


def test_releases_of_another_run_in_the_folder_count_but_do_not_stand_in(tmp_path):
    mechanism(tmp_path).release([CURRENT], CURRENT, 1, 4)
    other = Mechanism(PrivacyConfig(noise_multiplier=2.0), config(tmp_path), "other")
    assert other.spent() > 0
    other.resume(0)
    with pytest.raises(PrivacyError, match="misses round 1"):
        other.resume(1)


def test_a_damaged_ledger_is_refused_at_once(tmp_path):
    (tmp_path / "privacy.jsonl").write_text("")
    with pytest.raises(PrivacyError, match="is damaged"):
        mechanism(tmp_path)
