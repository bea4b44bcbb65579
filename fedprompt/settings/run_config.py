"""Read a run's configuration: flat ``section.key`` scalars, as Flower carries them to every node.

A TOML file has one table per owner (``[data]``, ``[prompt]`` ...); ``--set data.alpha=0.1``
overrides one key. Each owner validates its own section and refuses keys it does not know.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedprompt import toml
from fedprompt.errors import ConfigError
from fedprompt.prompts.methods import check_prompt, own_rule, prompt_config, prompt_defaults
from fedprompt.settings.backbone import BackboneConfig
from fedprompt.settings.data import DataConfig
from fedprompt.settings.fit import FitConfig
from fedprompt.settings.privacy import PrivacyConfig
from fedprompt.settings.prompt import CoopConfig, PromptConfig
from fedprompt.settings.section import Flat, Scalar, Section, fields_of, section
from fedprompt.settings.server import MEANS, ROBUST, ServerConfig

MAX_BYTES = 1 << 20  # of a file of settings; all of them take a few thousand
_BITS = 64  # of a whole number in TOML and in Flower's messages

SECTIONS: dict[str, type[Section]] = {
    "backbone": BackboneConfig,
    "data": DataConfig,
    "prompt": PromptConfig,  # or the model of its method
    "fit": FitConfig,
    "server": ServerConfig,
    "privacy": PrivacyConfig,
}


class RunConfig(Section):
    """Every setting of a run, checked alone and together.

    ``server.rule`` is never empty here: what an empty one means is the method's to say.
    """

    backbone: BackboneConfig = BackboneConfig()
    data: DataConfig = DataConfig()
    prompt: PromptConfig = CoopConfig()
    fit: FitConfig = FitConfig()
    server: ServerConfig = ServerConfig()
    privacy: PrivacyConfig = PrivacyConfig()

    @classmethod
    def parse(cls, flat: Mapping[str, Scalar]) -> "RunConfig":
        """Return the configuration of flat ``section.key`` settings; missing ones are defaults.

        Raises
        ------
        ConfigError
            A setting is unknown or refused, alone or beside the others.
        """
        check_keys(flat)
        config = cls.model_construct(
            backbone=section(flat, "backbone", BackboneConfig),
            data=section(flat, "data", DataConfig),
            prompt=prompt_config(**fields_of(flat, "prompt")),
            fit=section(flat, "fit", FitConfig),
            server=section(flat, "server", ServerConfig),
            privacy=section(flat, "privacy", PrivacyConfig),
        )
        merged_by = config.server.rule or own_rule(config.prompt.method)
        server = config.server.model_copy(update={"rule": merged_by})
        config = config.model_copy(update={"server": server})
        for rule in RULES:
            if rule.broken(config):
                raise ConfigError(rule.message.format_map(dict(config)))
        return config

    @classmethod
    def load(cls, path: Path | None, overrides: Sequence[str] = ()) -> "RunConfig":
        """Return the configuration of a TOML file and ``section.key=value`` overrides.

        Raises
        ------
        ConfigError
            As `load_flat` and `parse`.
        """
        return cls.parse(load_flat(path, overrides))

    def flat(self) -> Flat:
        """Return every setting by ``section.key``, as Flower carries them."""
        settings = defaults()  # also those of other methods
        for name, value in self:
            settings |= {f"{name}.{key}": scalar for key, scalar in value.model_dump().items()}
        return settings

    def override(self, changes: Mapping[str, Scalar]) -> "RunConfig":
        """Return the configuration with some settings changed."""
        return self.parse({**self.flat(), **changes})

    @property
    def update_bound(self) -> float:
        """Return the L2 norm that every update is cut to, under privacy or not; 0 = none."""
        private = self.privacy.noise_multiplier > 0
        return self.privacy.clip_norm if private else self.server.clip_norm


# rules between sections: settings that are right alone and wrong together

_MASKED = "under server.secure_aggregation = true"
_MEANS, _ROBUST = ", ".join(MEANS), ", ".join(ROBUST)


@dataclass(frozen=True)
class Rule:
    """One combination of settings that is refused.

    Attributes
    ----------
    broken
        Whether a configuration breaks the rule.
    message
        What was found, why it is wrong and what to choose; ``{server.rule}`` stands for a setting.
    """

    broken: Callable[[RunConfig], bool]
    message: str


RULES = (
    # a rank of the site's own
    Rule(
        lambda c: c.fit.rank > 0 and c.server.rule != "product",
        "fit.rank = {fit.rank} under server.rule = {server.rule}: sites of unequal rank meet under "
        "product only; set fit.rank = 0, or server.rule = product (prompt.method = dip-fixed "
        "has it of itself)",
    ),
    Rule(
        lambda c: c.fit.rank > c.prompt.rank,
        "fit.rank = {fit.rank} is more than prompt.rank = {prompt.rank}: a site may train at a "
        "smaller rank than the server's; set fit.rank = 0, or prompt.rank = {fit.rank}",
    ),
    # prompts that no site sends
    Rule(
        lambda c: c.prompt.personal == "local" and c.server.secure_aggregation,
        "server.secure_aggregation = True under prompt.personal = local: every site keeps its "
        "prompt to itself, so there is nothing to protect; leave server.secure_aggregation out",
    ),
    Rule(
        lambda c: c.prompt.personal == "local" and c.privacy.noise_multiplier > 0,
        "privacy.noise_multiplier = {privacy.noise_multiplier} under prompt.personal = local: "
        "every site keeps its prompt to itself, so there is nothing to protect; leave "
        "privacy.noise_multiplier out",
    ),
    # robust strategies
    Rule(
        lambda c: c.server.byzantine > 0 and c.server.strategy not in ROBUST,
        "server.byzantine = {server.byzantine} under server.strategy = {server.strategy}, which "
        f"any hostile site can move; choose one of {_ROBUST}, or set server.byzantine = 0",
    ),
    Rule(
        lambda c: (
            c.server.byzantine == 0
            and c.server.strategy in ROBUST
            and c.server.strategy != "fedmedian"
        ),
        "server.strategy = {server.strategy} needs server.byzantine, the number of sites that may "
        "be hostile: found 0, expected at least 1",
    ),
    Rule(
        lambda c: c.server.strategy in ROBUST and c.server.rule == "factors",
        "server.strategy = {server.strategy} under server.rule = factors would judge A and B "
        "apart, and equal prompts have many factors; set server.rule = product, shared-basis or "
        "fresh-basis",
    ),
    # secure aggregation
    Rule(
        lambda c: c.server.secure_aggregation and c.server.strategy in ROBUST,
        f"server.strategy = {{server.strategy}} {_MASKED}: it compares single updates, which "
        f"nobody sees; choose {_MEANS}",
    ),
    Rule(
        lambda c: c.server.secure_aggregation and c.server.rule == "factors",
        f"server.rule = factors {_MASKED}: what averaging factors loses could not be measured; "
        "set server.rule = product, shared-basis or fresh-basis",
    ),
    Rule(
        lambda c: c.server.secure_aggregation and c.server.weighting != "uniform",
        f"server.weighting = {{server.weighting}} {_MASKED}: masked weights cannot be checked; set "
        "server.weighting = uniform",
    ),
    Rule(
        lambda c: c.server.secure_aggregation and not c.update_bound,
        f"server.clip_norm = 0 {_MASKED}: the sites must know which range to quantise; set the "
        "largest norm of an update, 1.0 for a start",
    ),
    # privacy
    Rule(
        lambda c: c.privacy.noise_multiplier > 0 and c.server.strategy not in MEANS,
        "server.strategy = {server.strategy} under privacy.noise_multiplier = "
        "{privacy.noise_multiplier}: the noise hides a site in an average only; choose "
        f"one of {_MEANS}, or privacy.noise_multiplier = 0",
    ),
)


# flat settings, where not all of them are there yet


def load_flat(path: Path | None, overrides: Sequence[str] = ()) -> Flat:
    """Return the settings that a TOML file and ``section.key=value`` overrides give, and no others.

    Raises
    ------
    ConfigError
        The file is missing or broken, a section is unknown, a value is refused, or an override has
        no ``=``.
    """
    flat = read(path) if path else {}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--set {text!r}: found no '='; write --set section.key=value")
        flat[key.strip()] = _scalar(value.strip())
    check(flat)
    return flat


def read(path: Path) -> Flat:
    """Return the flat keys of a TOML file, not checked by their owners yet.

    Raises
    ------
    ConfigError
        The file is missing or broken, or a value is no scalar.
    """
    return _flatten(_read(path))


def check(flat: Mapping[str, Scalar]) -> None:
    """Validate settings each alone, so that a typo stops a run before it starts.

    Raises
    ------
    ConfigError
        A section or key is unknown, or a value is refused by its owner.
    """
    check_keys(flat)
    for name, model in SECTIONS.items():
        if name != "prompt":
            section(flat, name, model)
    check_prompt(fields_of(flat, "prompt"))


def check_keys(flat: Mapping[str, Scalar]) -> None:
    """Refuse keys of no section, and values that no message can carry.

    Raises
    ------
    ConfigError
        Names the key, and the known one that is nearest.
    """
    for key, value in flat.items():
        name = key.partition(".")[0]
        if name not in SECTIONS or "." not in key:
            raise ConfigError(
                f"{key!r} belongs to no section; {_nearest(key)}keys are section.key, sections are "
                f"{', '.join(SECTIONS)}"
            )
        if isinstance(value, str) and "\0" in value:
            raise ConfigError(f"{key} = {value!r:.200} holds a NUL character; leave it out")
        if isinstance(value, int) and value.bit_length() >= _BITS:
            raise ConfigError(
                f"{key} is a number of {value.bit_length()} bits; at most {_BITS} travel to a site"
            )


def defaults() -> Flat:
    """Return every key of every section with its default value; ``server.rule`` is empty."""
    flat: Flat = {}
    for name, model in SECTIONS.items():
        values = prompt_defaults() if name == "prompt" else model().model_dump()
        flat |= {f"{name}.{key}": value for key, value in values.items()}
    return flat


def _nearest(key: str) -> str:
    """Return a hint at the known key that a key of no section may mean."""
    name, _, field = key.rpartition(".")
    known = list(defaults())
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.8)
    near += [k for k in known if k.partition(".")[2] == field]
    near += [f"{k}.{field}" for k in difflib.get_close_matches(name, SECTIONS, n=1)]
    return f"did you mean {near[0]}? " if near else ""


def _read(path: Path) -> dict[str, object]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ConfigError(f"{path} is larger than {MAX_BYTES:,} bytes; give a file of settings")
        return toml.loads(data.decode())
    except OSError as error:
        raise ConfigError(f"{path} could not be read: {error.strerror}; check --config") from None
    except ValueError as error:  # also a number of 5,000 digits
        raise ConfigError(f"{path} is not TOML: {error}") from None


def _flatten(tree: Mapping[str, object]) -> Flat:
    flat: Flat = {}
    for name, table in tree.items():
        if not isinstance(table, Mapping):
            raise ConfigError(f"{name!r} stands outside a section; write it under [section]")
        for key, value in table.items():
            if not isinstance(value, Scalar):
                raise ConfigError(f"{name}.{key}: found {type(value).__name__}, expected a scalar")
            flat[f"{name}.{key}"] = value
    return flat


def _scalar(text: str) -> Scalar:
    """Read a value as TOML does; a bare word is a string."""
    try:
        value = toml.loads(f"value = {text}")["value"]
    except ValueError:
        return text
    return value if isinstance(value, Scalar) else text
