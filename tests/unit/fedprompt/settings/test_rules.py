"""Settings that are right alone and wrong together: each rule refuses, and says what to choose."""

import pytest

from fedprompt.errors import ConfigError
from fedprompt.settings.run_config import RULES, RunConfig
from fedprompt.settings.server import MEANS, ROBUST

MASKED = {
    "server.secure_aggregation": True,
    "server.weighting": "uniform",
    "server.clip_norm": 1.0,
}
LOCAL = {"prompt.personal": "local"}
PRIVATE = {"privacy.noise_multiplier": 1.0}
REFUSED = [
    ({"fit.rank": 1, "server.rule": "factors"}, r"fit\.rank = 1 under server\.rule = factors"),
    ({"fit.rank": 1}, r"under server\.rule = fresh-basis.*set fit\.rank = 0"),
    ({"fit.rank": 3, "prompt.rank": 2, "server.rule": "product"}, r"more than prompt\.rank = 2"),
    (LOCAL | MASKED, r"under prompt\.personal = local.*leave server\.secure_aggregation out"),
    (LOCAL | PRIVATE, r"under prompt\.personal = local.*leave privacy\.noise_multiplier out"),
    ({"server.byzantine": 1}, r"fedavg, which any hostile site can move.*fedmedian"),
    ({"server.strategy": "krum"}, r"server\.byzantine.*found 0, expected at least 1"),
    (
        {"server.strategy": "krum", "server.byzantine": 1, "server.rule": "factors"},
        "judge A and B apart",
    ),
    (MASKED | {"server.strategy": "fedmedian"}, "nobody sees; choose fedavg"),
    (MASKED | {"server.rule": "factors"}, r"set server\.rule = product"),
    (MASKED | {"server.weighting": "examples"}, r"set server\.weighting = uniform"),
    (MASKED | {"server.clip_norm": 0.0}, "set the largest norm"),
    (PRIVATE | {"server.strategy": "fedmedian"}, "hides a site in an average only; choose one of"),
]


@pytest.mark.parametrize(("flat", "says"), REFUSED)
def test_the_message_says_what_to_choose(flat, says):
    with pytest.raises(ConfigError, match=says):
        RunConfig.parse(flat)


def test_every_rule_is_shown_here():
    sound = RunConfig()
    assert not any(rule.broken(sound) for rule in RULES)
    configs = [sound.model_copy(update=_sections(flat)) for flat, _ in REFUSED]
    assert all(any(rule.broken(config) for config in configs) for rule in RULES)


@pytest.mark.parametrize(
    "flat",
    [
        MASKED,
        MASKED | {"server.clip_norm": 0.0} | PRIVATE,  # privacy has a norm of its own
        {"server.strategy": "fedmedian"},
        *({"server.strategy": name, "server.byzantine": 1} for name in ROBUST),
        *(PRIVATE | {"server.strategy": name} for name in MEANS),
        {"server.rule": "product", "fit.rank": 1, "prompt.rank": 2},
        LOCAL,
    ],
)
def test_sound_settings_pass(flat):
    for rule in ("product", "shared-basis", "fresh-basis"):
        own = flat if "server.rule" in flat else flat | {"server.rule": rule}
        assert RunConfig.parse(own).flat().items() >= own.items()


def _sections(flat):
    config = RunConfig()
    fields = {}
    for key, value in flat.items():
        name, _, field = key.partition(".")
        section = fields.get(name, getattr(config, name))
        fields[name] = section.model_copy(update={field: value})
    if "server" not in fields or fields["server"].rule == "":
        server = fields.get("server", config.server)
        fields["server"] = server.model_copy(update={"rule": "fresh-basis"})
    return fields
