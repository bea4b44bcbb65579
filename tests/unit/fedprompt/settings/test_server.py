"""The server's settings: all have defaults, nonsense is refused by name."""

import math

import pytest

from fedprompt.errors import ConfigError
from fedprompt.settings.section import section
from fedprompt.settings.server import ServerConfig


def test_everything_has_a_default():
    assert section({}, "server", ServerConfig) == ServerConfig()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rounds", -1), ("strategy", "fedsgd"), ("rule", "average"), ("fraction", 0.0),
        ("fraction", 1.5), ("quorum", 0), ("deadline", 0), ("learning_rate", math.nan),
        ("clip_factor", -1), ("workers", 0), ("dtype", "float64"), ("retries", -1),
    ],
)  # fmt: skip
def test_nonsense_is_refused_by_name(key, value):
    with pytest.raises(ConfigError, match=f"server.{key}"):
        section({f"server.{key}": value}, "server", ServerConfig)


def test_a_typo_is_answered_with_the_near_key():
    with pytest.raises(ConfigError, match=r"did you mean server\.rounds"):
        section({"server.round": 3}, "server", ServerConfig)
