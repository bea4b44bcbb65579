import pytest

from fedprompt.errors import ConfigError
from fedprompt.settings.fit import FitConfig
from fedprompt.settings.section import section


def test_defaults_are_valid_and_frozen() -> None:
    config = FitConfig()
    assert (config.optimiser, config.batch, config.rank, config.cache) == ("adamw", 32, 0, True)
    with pytest.raises(ValueError, match="frozen"):
        config.batch = 1


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("optimiser", "adam"),
        ("learning_rate", -0.1),
        ("learning_rate", float("nan")),
        ("learning_rate", float("inf")),
        ("weight_decay", -1),
        ("momentum", 1),
        ("schedule", "linear"),
        ("warmup", 1),
        ("epochs", 0),
        ("batch", 0),
        ("batch", 1.5),
        ("rank", -1),
        ("threads", 0),
        ("encode_batch", 0),
        ("cache", "perhaps"),
    ],
)
def test_f33_values_out_of_range_name_their_field(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"fit.{key} = "):
        section({f"fit.{key}": value}, "fit", FitConfig)
