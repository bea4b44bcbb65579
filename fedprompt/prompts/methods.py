"""Every prompt method, one line each, and how its settings are read.

A method's recipe is loaded when its prompt is built: reading settings loads no torch.
"""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fedprompt.errors import ConfigError
from fedprompt.settings.prompt import (
    AdaptConfig,
    ContextConfig,
    CoopConfig,
    DeepConfig,
    MudptConfig,
    PromptConfig,
    SptConfig,
    TextConfig,
    VptConfig,
)
from fedprompt.settings.section import Flat, Scalar, parse, unknown

_SECTION = "prompt."


@dataclass(frozen=True)
class Method:
    """What can be said of a method without building it.

    Attributes
    ----------
    recipe
        Where the recipe is, ``module:NAME``.
    settings
        Model of the ``[prompt]`` section for this method.
    source
        The paper.
    rule
        How its low-rank form is merged, unless server.rule says otherwise.
    """

    recipe: str
    settings: type[PromptConfig]
    source: str
    rule: str = "product"


_P = "fedprompt.prompts."
METHODS: dict[str, Method] = {
    "dip": Method(f"{_P}coop:DIP", CoopConfig, "arXiv 2312.10813", rule="fresh-basis"),
    "dip-fixed": Method(f"{_P}coop:DIP", CoopConfig, "arXiv 2312.10813"),
    "coop": Method(f"{_P}coop:COOP", CoopConfig, "arXiv 2109.01134"),
    "vpt": Method(f"{_P}vpt:VPT", VptConfig, "arXiv 2203.12119"),
    "ivlp": Method(f"{_P}ivlp:IVLP", DeepConfig, "arXiv 2210.03117"),  # MaPLe's baseline
    "maple": Method(f"{_P}maple:MAPLE", DeepConfig, "arXiv 2210.03117"),
    "mudpt": Method(f"{_P}mudpt:MUDPT", MudptConfig, "arXiv 2306.11400"),
    "sdpt": Method(f"{_P}sdpt:SDPT", TextConfig, "arXiv 2407.11414"),
    "kgcoop": Method(f"{_P}coop:KGCOOP", CoopConfig, "arXiv 2303.13283"),
    "prograd": Method(f"{_P}coop:PROGRAD", CoopConfig, "arXiv 2205.14865"),
    "promptsrc": Method(f"{_P}ivlp:PROMPTSRC", DeepConfig, "arXiv 2307.06948"),
    "spt": Method(f"{_P}spt:SPT", SptConfig, "arXiv 2402.02382"),
    "advpt": Method(f"{_P}advpt:ADVPT", CoopConfig, "arXiv 2311.11261"),
    "adapt": Method(f"{_P}adapt:ADAPT", AdaptConfig, "arXiv 2310.03103"),
    "cocoop": Method(f"{_P}cocoop:COCOOP", ContextConfig, "arXiv 2203.05557"),
    "linear": Method(f"{_P}linear:LINEAR", PromptConfig, "arXiv 2103.00020"),
    "fedclip": Method(f"{_P}fedclip:FEDCLIP", PromptConfig, "arXiv 2302.13485"),
}
ZERO_SHOT, ENSEMBLE = "template", "ensemble"
UNTRAINED = (ZERO_SHOT, ENSEMBLE)  # by hand-written words
ZERO_SHOT_SOURCE = "arXiv 2103.00020"


def settings_model(method: str) -> type[PromptConfig]:
    """Return the model of a method's settings.

    Raises
    ------
    ConfigError
        The method is unknown.
    """
    if method in UNTRAINED:
        return PromptConfig
    if method not in METHODS:
        known = [*METHODS, *UNTRAINED]
        near = difflib.get_close_matches(method, known, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(
            f"prompt.method = {method!r:.200}: {hint}expected one of {', '.join(known)}"
        )
    return METHODS[method].settings


def own_rule(method: str) -> str:
    """Return the rule by which a method's low-rank form is merged, unless server.rule is set."""
    return METHODS[method].rule if method in METHODS else "product"


def prompt_config(**values: Scalar) -> PromptConfig:
    """Return the ``[prompt]`` section as its method's model.

    A setting that belongs to other methods may be there at its default, as in the settings that
    Flower carries.

    Raises
    ------
    ConfigError
        A setting is unknown, refused, or one of other methods.
    """
    method = str(values.get("method", PromptConfig().method))
    model = settings_model(method)
    for key in sorted(values.keys() - model.model_fields.keys()):
        if (owners := takers(key)) and values[key] != default_of(key):
            raise ConfigError(
                f"prompt.{key} = {values[key]!r:.200} is a setting of {', '.join(owners)}; "
                f"prompt.method = {method} takes none: leave it out"
            )
    own = {k: v for k, v in values.items() if k in model.model_fields or not takers(k)}
    return parse("prompt", model, own)


def check_prompt(values: Mapping[str, Scalar]) -> None:
    """Validate some settings of the ``[prompt]`` section, whose method may be named elsewhere.

    Raises
    ------
    ConfigError
        As `prompt_config` does.
    """
    if "method" in values:
        prompt_config(**values)
        return
    for key, value in values.items():
        if not takers(key):
            raise ConfigError(unknown("prompt", key, list(prompt_defaults())))
        parse("prompt", settings_model(takers(key)[0]), {key: value})


def applicable(flat: Mapping[str, Scalar]) -> Flat:
    """Return settings without those of methods that are not the configured one."""
    method = str(flat.get(f"{_SECTION}method", PromptConfig().method))
    fields = settings_model(method).model_fields
    return {
        key: value
        for key, value in flat.items()
        if not key.startswith(_SECTION)
        or (name := key.removeprefix(_SECTION)) in fields
        or not takers(name)
    }


def takers(key: str) -> list[str]:
    """Return the methods that take a setting."""
    return [name for name, method in METHODS.items() if key in method.settings.model_fields]


def models() -> Iterator[type[PromptConfig]]:
    """Yield the models of all methods, each once, the one that all share first."""
    yield from {PromptConfig: None} | {m.settings: None for m in METHODS.values()}


def default_of(key: str) -> Scalar:
    """Return a setting's default, which is one for all methods that take it."""
    return prompt_defaults()[key]


def prompt_defaults() -> dict[str, Scalar]:
    """Return the settings of all methods with their defaults."""
    return {key: field.default for model in models() for key, field in model.model_fields.items()}
