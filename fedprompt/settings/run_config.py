"""Read a run's configuration: flat ``section.key`` scalars, as Flower carries them to every node.

A TOML file has one table per owner (``[data]``, ``[prompt]`` ...); ``--set data.alpha=0.1``
overrides one key. Each owner validates its own section and refuses keys it does not know.
"""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from fedprompt import toml
from fedprompt.errors import ConfigError
from fedprompt.settings.backbone import BackboneConfig
from fedprompt.settings.data import DataConfig
from fedprompt.settings.fit import FitConfig
from fedprompt.settings.privacy import PrivacyConfig
from fedprompt.settings.prompt import PromptConfig
from fedprompt.settings.section import Flat, Scalar, Section
from fedprompt.settings.server import ServerConfig

MAX_BYTES = 1 << 20  # of a file of settings; all of them take a few thousand
_BITS = 64  # of a whole number in TOML and in Flower's messages

SECTIONS: dict[str, type[Section]] = {
    "backbone": BackboneConfig,
    "data": DataConfig,
    "prompt": PromptConfig,
    "fit": FitConfig,
    "server": ServerConfig,
    "privacy": PrivacyConfig,
}

AnySection = TypeVar("AnySection", bound=Section)


def load(path: Path | None, overrides: Sequence[str] = ()) -> Flat:
    """Return the flat configuration of a TOML file and ``section.key=value`` overrides.

    Raises
    ------
    ConfigError
        The file is missing or broken, a section is unknown, or an override has no ``=``.
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
    """Validate every section now, so that a typo stops a run before it starts.

    Raises
    ------
    ConfigError
        A section or key is unknown, or a value is refused by its owner.
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
    for name, model in SECTIONS.items():
        section(flat, name, model)


def defaults() -> Flat:
    """Return every key of every section with its default value."""
    flat: Flat = {}
    for name, model in SECTIONS.items():
        flat |= {f"{name}.{key}": value for key, value in model().model_dump().items()}
    return flat


def section(flat: Mapping[str, Scalar], name: str, model: type[AnySection]) -> AnySection:
    """Return one owner's validated section.

    Raises
    ------
    ConfigError
        Names the field, what was found and what is allowed (F33).
    """
    prefix = f"{name}."
    values = {k.removeprefix(prefix): v for k, v in flat.items() if k.startswith(prefix)}
    try:
        return model(**values)
    except ValidationError as error:
        raise ConfigError(_explain(name, model, error)) from None


def _nearest(key: str) -> str:
    """Return a hint at the known key that a key of no section may mean."""
    name, _, field = key.rpartition(".")
    known = list(defaults())
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.8)
    near += [k for k in known if k.partition(".")[2] == field]
    near += [f"{k}.{field}" for k in difflib.get_close_matches(name, SECTIONS, n=1)]
    return f"did you mean {near[0]}? " if near else ""


def _explain(name: str, model: type[Section], error: ValidationError) -> str:
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"]) or "(section)"
    allowed = list(model.model_fields)
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(field, allowed, n=1)
        hint = f"did you mean {name}.{near[0]}? " if near else ""
        return f"{name}.{field} is not a setting: {hint}allowed are {', '.join(allowed)}"
    return f"{name}.{field} = {shown(first.get('input'))}: {first['msg']}"


def shown(value: object) -> str:
    """Return a refused value for a message, short; Python writes no number of 5,000 digits."""
    try:
        return f"{value!r:.200}"
    except ValueError:
        return f"a {type(value).__name__} of thousands of digits"


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
