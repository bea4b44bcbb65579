"""What every section of settings is: frozen scalars, unknown keys refused."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

from fedprompt.home import at_home

Scalar = str | int | float | bool
Flat = dict[str, Scalar]  # by section.key, as Flower carries settings to every node

# the type of every setting that is, or may be, a path: a shell expands no ~ behind --set key=
Place = Annotated[str, AfterValidator(at_home)]


class Section(BaseModel):
    """One owner's settings: scalars, frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
