import pytest

from fedprompt.errors import ConfigError
from server.secure_aggregation.check import check
from tests.sites import config

SOUND = {"secure_aggregation": True, "weighting": "uniform"}


def test_sound_settings_pass(tmp_path):
    for rule in ("product", "shared-basis"):
        check(config(tmp_path, rule=rule, **SOUND), 1.0)


def test_nothing_is_asked_of_a_run_without_it(tmp_path):
    check(config(tmp_path, strategy="fedmedian", rule="factors"), 0.0)


@pytest.mark.parametrize(
    ("change", "clip", "match"),
    [
        ({"strategy": "fedmedian"}, 1.0, "choose fedavg"),
        ({"rule": "factors"}, 1.0, "set server.rule = product"),
        ({"weighting": "examples"}, 1.0, "set server.weighting = uniform"),
        ({}, 0.0, "set the largest norm"),
    ],
)
def test_the_message_says_what_to_choose(tmp_path, change, clip, match):
    with pytest.raises(ConfigError, match=match):
        check(config(tmp_path, **(SOUND | change)), clip)
