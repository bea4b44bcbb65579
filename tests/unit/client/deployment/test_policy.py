import tomllib
from pathlib import Path

import pytest

from client.deployment.policy import Policy
from fedprompt.errors import ConfigError, PolicyError
from fedprompt.settings.run_config import defaults
from fedprompt.settings.section import Flat

SERVER = "127.0.0.1:9092"


def written(folder: Path, text: str) -> Path:
    path = folder / "policy.toml"
    path.write_text(text, encoding="utf-8")
    return path


def policy(**rules: object) -> Policy:
    return Policy(**({"servers": (SERVER,)} | rules))


def admit(found: Policy, kind: str = "train", sites: object = 5, **settings: object) -> None:
    run: Flat = {**defaults(), **{k.replace("__", "."): v for k, v in settings.items()}}
    found.admit(SERVER, kind, run, sites)


def test_a_file_is_read_and_what_is_missing_has_its_default(tmp_path: Path) -> None:
    path = written(tmp_path, f'servers = ["{SERVER}"]\nmetrics = ["loss"]\nmax_norm = 3\n')
    found = Policy.read(path)
    assert found.servers == (SERVER,)
    assert found.metrics == {"loss"}
    assert found.max_norm == 3.0
    assert found.min_sites == Policy.model_fields["min_sites"].default == 2


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("min_site = 3", "min_site is no rule: did you mean min_sites"),
        ("max_norm = nan", "max_norm = nan"),
        ("secure_aggregation_only = 1", "secure_aggregation_only = 1"),
        ("max_norm = -1", "max_norm = -1"),
        ("min_sites = 0", "min_sites = 0"),
        ('min_sites = "3"', "min_sites"),
        ("min_sites = true", "min_sites"),
        ('servers = ["everywhere"]', "expected host:port"),
        ('metrics = ["features"]', "metrics"),
        ("max_day = 1e9", "max_day"),
        ("min_sites = ", "is not TOML"),
        ("[section]\nmin_sites = 3", "section is no rule"),
        (f"min_sites = {'9' * 5000}", "is not TOML"),
        ("#" * 200_000, "larger than"),
    ],
)
def test_f33_a_broken_policy_is_refused_by_name(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Policy.read(written(tmp_path, text))


def test_nothing_leaves_without_a_policy(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing leaves"):
        Policy.read(tmp_path / "policy.toml")


def test_what_is_allowed_passes() -> None:
    for kind in ("query", "train", "evaluate"):
        admit(policy(), kind)


def test_a_server_that_is_not_listed_is_refused() -> None:
    with pytest.raises(PolicyError, match=r"^servers"):
        admit(Policy())


def test_a_method_that_is_not_listed_is_refused() -> None:
    for kind in ("query", "train", "evaluate"):
        with pytest.raises(PolicyError, match=r"^methods: 'coop'"):
            admit(policy(methods=("dip",)), kind, prompt__method="coop")


@pytest.mark.parametrize("sites", [2, None, True, "9", 9.0])
def test_a_small_round_is_refused_and_so_is_one_that_does_not_say(sites: object) -> None:
    with pytest.raises(PolicyError, match=r"^min_sites: 3 at least"):
        admit(policy(min_sites=3), "train", sites)
    admit(policy(min_sites=3), "evaluate", sites)  # nobody's answer is merged there


def test_too_many_passes_are_refused() -> None:
    admit(policy(max_epochs=2), fit__epochs=2)
    for epochs in (3, "many", None):
        with pytest.raises(PolicyError, match=r"^max_epochs"):
            admit(policy(max_epochs=2), fit__epochs=epochs)


def test_a_withheld_count_needs_uniform_weights() -> None:
    silent = policy(metrics=frozenset({"loss"}))
    admit(silent, server__weighting="uniform")
    for kind in ("query", "train", "evaluate"):
        with pytest.raises(PolicyError, match=r"^metrics: num-examples.*uniform"):
            admit(silent, kind, server__weighting="examples")


def test_a_site_can_insist_on_masked_updates() -> None:
    found = policy(secure_aggregation_only=True)
    for kind in ("query", "train", "evaluate"):
        admit(found, kind, server__secure_aggregation=True)
        for plain in (False, None, "true", 1):
            with pytest.raises(PolicyError, match=r"^secure_aggregation_only: .* = false"):
                admit(found, kind, server__secure_aggregation=plain)
    found.allow_update(is_masked=True)
    with pytest.raises(PolicyError, match=r"^secure_aggregation_only: .* in the clear"):
        found.allow_update(is_masked=False)
    policy().allow_update(is_masked=False)


def test_bytes_of_an_answer_and_of_a_day_are_bounded() -> None:
    found = policy(max_message=100, max_day=250)
    found.allow_bytes(100, 150)
    with pytest.raises(PolicyError, match=r"^max_message: the answer has 101 bytes"):
        found.allow_bytes(101, 0)
    with pytest.raises(PolicyError, match=r"^max_day"):
        found.allow_bytes(100, 151)


def test_the_example_is_a_policy_and_says_the_defaults() -> None:
    path = Path(__file__).parents[4] / "examples" / "site-policy.toml"
    found = Policy.read(path)
    stated = tomllib.loads(path.read_text(encoding="utf-8"))
    assert set(stated) == set(Policy.model_fields)
    unchanged = set(stated) - {"servers", "methods"}
    assert found.model_dump(include=unchanged) == Policy().model_dump(include=unchanged)
