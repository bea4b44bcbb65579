"""A site's policy: what may leave it, to whom and how much. No server can change it.

``policy.toml`` is read at every message, so that a change applies from the next one on. A message
that a rule forbids is answered by an error that names the rule, and by nothing of the site's data.
"""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from fedprompt import toml
from fedprompt.errors import ConfigError, PolicyError
from fedprompt.protocol import address
from fedprompt.settings.section import Scalar, shown
from fedprompt.wire import CENTRES

Metric = Literal["num-examples", "loss", "correct"]
METRICS = frozenset(get_args(Metric))
_MAX_BYTES = 100_000  # of the file
_MASKED = "secure_aggregation_only: this site takes part under secure aggregation only, the run"


class Policy(BaseModel):
    """The rules of a site; one that is missing from the file has the default given here."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)

    # sites that a round asks, at least; the number is the server's own claim: a site cannot count
    min_sites: int = Field(2, ge=1)
    secure_aggregation_only: bool = False  # masked updates leave, or none
    max_norm: float = Field(10.0, ge=0)  # L2 norm of an update in the dense prompt; 0 = any
    servers: tuple[str, ...] = Field((), strict=False)  # host:port that may be talked to
    # prompts that may be tuned
    methods: tuple[str, ...] = Field(("dip", "dip-fixed", "coop"), strict=False)
    max_message: int = Field(1_000_000, ge=1)  # bytes of one answer
    max_day: int = Field(200_000_000, ge=1)  # bytes of all answers of a day, UTC
    # least noise (prompt.start_noise) on centres of patch tokens that leave (spt); 0 = none leave
    min_start_noise: float = Field(0.0, ge=0)
    max_epochs: int = Field(50, ge=1)  # passes over the images that one round may ask for
    # numbers that may leave beside the prompt
    metrics: Annotated[frozenset[Metric], Field(strict=False)] = METRICS

    @field_validator("servers")
    @classmethod
    def _are_addresses(cls, servers: tuple[str, ...]) -> tuple[str, ...]:
        for server in servers:
            try:
                address.split(server)
            except ConfigError as error:
                raise ValueError(str(error)) from None
        return servers

    @classmethod
    def read(cls, path: Path) -> "Policy":
        """Return the policy in a file.

        Raises
        ------
        ConfigError
            It is missing or broken, a rule is unknown, or its value is refused.
        """
        try:
            data = path.read_bytes()
            if len(data) > _MAX_BYTES:
                raise ConfigError(f"{path} is larger than {_MAX_BYTES} bytes; write it anew")
            return cls.model_validate(toml.loads(data.decode()))
        except OSError as error:
            raise ConfigError(
                f"{path} could not be read: {error.strerror}; nothing leaves this site without it"
            ) from None
        except ValidationError as error:
            raise ConfigError(f"{path}: {_explain(error)}") from None
        except ValueError as error:
            raise ConfigError(f"{path} is not TOML: {error}") from None

    def admit(self, server: str, kind: str, settings: Mapping[str, Scalar], sites: object) -> None:
        """Accept a message, or refuse it before anything is computed.

        Parameters
        ----------
        server
            Whom this site talks to, ``host:port``.
        kind
            ``query``, ``train``, ``evaluate`` or `fedprompt.wire.CENTRES`.
        settings
            The run's, as the server sent them.
        sites
            How many sites the round asks, as the server claims.

        Raises
        ------
        PolicyError
            Names the rule.
        """
        if server not in self.servers:
            raise PolicyError("servers: this server is not in the list")
        if (method := settings.get("prompt.method")) not in self.methods:
            allowed = ", ".join(self.methods) or "none"
            raise PolicyError(f"methods: {method!r:.40} is asked for, allowed are {allowed}")
        if "num-examples" not in self.metrics and settings.get("server.weighting") != "uniform":
            raise PolicyError(
                "metrics: num-examples may not leave, so this site takes part under "
                "server.weighting = uniform only"
            )
        if self.secure_aggregation_only and settings.get("server.secure_aggregation") is not True:
            raise PolicyError(f"{_MASKED} has server.secure_aggregation = false")
        if kind in ("train", CENTRES):
            self._admit_crowd(sites)
        if kind == "train":
            self._admit_epochs(settings)
        if kind == CENTRES:
            self._admit_centres(settings)

    def allow_update(self, *, is_masked: bool) -> None:
        """Allow a request for an update, or the update, unless policy requires it to be masked.

        Raises
        ------
        PolicyError
            Names the rule.
        """
        if self.secure_aggregation_only and not is_masked:
            raise PolicyError(f"{_MASKED} wants this update in the clear")

    def _admit_crowd(self, sites: object) -> None:
        count = sites if isinstance(sites, int) and not isinstance(sites, bool) else 0
        if count < self.min_sites:
            raise PolicyError(f"min_sites: {self.min_sites} at least, the server names {count}")

    def _admit_epochs(self, settings: Mapping[str, Scalar]) -> None:
        epochs = settings.get("fit.epochs")
        if not isinstance(epochs, int) or epochs > self.max_epochs:
            raise PolicyError(
                f"max_epochs: {epochs!r:.40} are asked for, {self.max_epochs} at most"
            )

    def _admit_centres(self, settings: Mapping[str, Scalar]) -> None:
        if self.secure_aggregation_only:
            raise PolicyError("secure_aggregation_only: centres of patch tokens are not masked")
        noise, least = settings.get("prompt.start_noise"), self.min_start_noise
        if not least:
            raise PolicyError("min_start_noise: centres of patch tokens may not leave this site")
        if not isinstance(noise, int | float) or noise < least:
            raise PolicyError(f"min_start_noise: {least} at least, the run has {noise!r:.40}")

    def allow_bytes(self, size: int, today: int) -> None:
        """Allow an answer to leave, or refuse it for its size.

        Parameters
        ----------
        size
            Bytes of the answer.
        today
            Bytes that have left since midnight, UTC.

        Raises
        ------
        PolicyError
            Names the rule.
        """
        if size > self.max_message:
            raise PolicyError(
                f"max_message: the answer has {size} bytes, at most {self.max_message}"
            )
        if today + size > self.max_day:
            raise PolicyError(f"max_day: {self.max_day} bytes a day are spent; again tomorrow, UTC")


def _explain(error: ValidationError) -> str:
    first: Any = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        allowed = list(Policy.model_fields)
        near = difflib.get_close_matches(field, allowed, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        return f"{field} is no rule: {hint}rules are {', '.join(allowed)}"
    return f"{field} = {shown(first.get('input'))}: {first['msg']}"
