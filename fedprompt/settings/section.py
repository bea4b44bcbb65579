"""What every section of settings is: frozen scalars, unknown keys refused."""

import difflib
from collections.abc import Mapping
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from fedprompt.errors import ConfigError
from fedprompt.home import at_home

Scalar = str | int | float | bool
Flat = dict[str, Scalar]  # by section.key, as Flower carries settings to every node

# the type of every setting that is, or may be, a path: a shell expands no ~ behind --set key=
Place = Annotated[str, AfterValidator(at_home)]


class Section(BaseModel):
    """One owner's settings: scalars, frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


AnySection = TypeVar("AnySection", bound=Section)


def section(flat: Mapping[str, Scalar], name: str, model: type[AnySection]) -> AnySection:
    """Return the validated section of flat ``section.key`` settings.

    Raises
    ------
    ConfigError
        Names the field, what was found and what is allowed (F33).
    """
    return parse(name, model, fields_of(flat, name))


def fields_of(flat: Mapping[str, Scalar], name: str) -> dict[str, Scalar]:
    """Return one section's settings by their short names."""
    prefix = f"{name}."
    return {k.removeprefix(prefix): v for k, v in flat.items() if k.startswith(prefix)}


def parse(name: str, model: type[AnySection], values: Mapping[str, Scalar]) -> AnySection:
    """Return a section of its own settings.

    Raises
    ------
    ConfigError
        As `section` does.
    """
    try:
        return model(**values)
    except ValidationError as error:
        raise ConfigError(_explain(name, model, error)) from None


def _explain(name: str, model: type[Section], error: ValidationError) -> str:
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"]) or "(section)"
    if first["type"] == "extra_forbidden":
        return unknown(name, field, list(model.model_fields))
    return f"{name}.{field} = {shown(first.get('input'))}: {first['msg']}"


def unknown(name: str, field: str, allowed: list[str]) -> str:
    """Return what to say of a setting that a section does not have."""
    near = difflib.get_close_matches(field, allowed, n=1)
    hint = f"did you mean {name}.{near[0]}? " if near else ""
    return f"{name}.{field} is not a setting: {hint}allowed are {', '.join(allowed)}"


def shown(value: object) -> str:
    """Return a refused value for a message, short; Python writes no number of 5,000 digits."""
    try:
        return f"{value!r:.200}"
    except ValueError:
        return f"a {type(value).__name__} of thousands of digits"
