import pytest
from pydantic import ValidationError

from fedprompt.errors import ConfigError
from fedprompt.settings.data import DataConfig
from fedprompt.settings.section import section


def test_defaults_are_the_demo() -> None:
    config = DataConfig()
    assert (config.source, config.partitioner, config.alpha) == ("fashion-mnist", "dirichlet", 0.3)
    assert (config.clients, config.holdout, config.template) == (10, 0.2, "a photo of a {}.")


def test_it_is_frozen_and_hashable() -> None:
    with pytest.raises(ValidationError):
        DataConfig().seed = 3  # type: ignore[misc]
    assert {DataConfig(): 1}[DataConfig()] == 1


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("alhpa", 1, r"data\.alhpa is not a setting: did you mean data\.alpha"),
        ("alpha", 0, r"data\.alpha = 0"),
        ("alpha", float("nan"), r"data\.alpha = nan"),
        ("holdout", 1.0, r"data\.holdout = 1\.0"),
        ("shots", -1, r"data\.shots = -1"),
        ("partitioner", "dirichelet", r"data\.partitioner = 'dirichelet': .*one of iid, dirichlet"),
        ("leakage", "hide", r"data\.leakage = 'hide': .*'refuse'"),
        ("template", "a photo", r"data\.template = 'a photo': .*once and no other braces"),
        ("template", "{} or {}", "once and no other braces"),
        ("template", "{x} {}", "once and no other braces"),
        ("max_pixels", 10**12, r"data\.max_pixels"),
    ],
)
def test_F33_bad_values_name_the_field(key: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        section({f"data.{key}": value}, "data", DataConfig)  # type: ignore[dict-item]
