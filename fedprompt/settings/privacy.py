"""How much a merged prompt may tell about one site: noise, its accounting and the budget."""

from typing import Self

from pydantic import Field, model_validator

from fedprompt.settings.section import Section

_LEAST_NOISE = 0.1  # one release costs epsilon 92 at delta 1e-5; less noise protects nobody


class PrivacyConfig(Section):
    """Settings of the ``[privacy]`` section."""

    noise_multiplier: float = Field(0.0, ge=0, le=1000)  # noise over clip_norm; 0 = no privacy
    clip_norm: float = Field(1.0, gt=0)  # L2 norm every site's update is cut to
    epsilon: float = Field(8.0, gt=0, le=100)  # budget of a run's folder; no release passes it
    delta: float = Field(1e-5, gt=0, lt=1)  # probability that epsilon does not hold

    @model_validator(mode="after")
    def _protects(self) -> Self:
        if 0 < self.noise_multiplier < _LEAST_NOISE:
            raise ValueError(
                f"noise_multiplier = {self.noise_multiplier} is below {_LEAST_NOISE} and protects "
                "nobody; choose more noise, or 0 to go without privacy"
            )
        return self
