import pytest

from fedprompt.errors import ConfigError
from fedprompt.settings.privacy import PrivacyConfig
from fedprompt.settings.section import section


def test_privacy_is_off_by_default():
    assert PrivacyConfig().noise_multiplier == 0


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("noise_multiplier", -1.0),
        ("noise_multiplier", 0.05),
        ("clip_norm", 0.0),
        ("epsilon", 0.0),
        ("epsilon", 1000.0),
        ("epsilon", float("nan")),
        ("delta", 0.0),
        ("delta", 1.0),
        ("noise", 1.0),
    ],
)
def test_F33_settings_that_protect_nobody_are_refused(key, value):
    with pytest.raises(ConfigError, match="privacy"):
        section({f"privacy.{key}": value}, "privacy", PrivacyConfig)


def test_too_little_noise_is_told():
    with pytest.raises(ConfigError, match="choose more noise, or 0"):
        section({"privacy.noise_multiplier": 0.05}, "privacy", PrivacyConfig)
