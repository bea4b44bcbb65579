"""What one caller may ask of the service."""

import math
from dataclasses import dataclass

from fedprompt.data.decode import MAX_PIXELS, PILLOW_MAX_PIXELS
from fedprompt.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bound the memory and the time of the service.

    Attributes
    ----------
    max_bytes
        Of a request's body; what is larger is not read to its end.
    max_pixels
        Of one image, before memory is taken for it.
    max_images
        Of one request.
    seconds
        From a request's first byte to its answer.
    requests
        Read, waiting or computed at the same time; one more is turned away.
    batch
        Images computed at a time, of several requests if they wait.
    """

    max_bytes: int = 20_000_000
    max_pixels: int = MAX_PIXELS
    max_images: int = 16
    seconds: float = 30.0
    requests: int = 32
    batch: int = 16

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_pixels", "max_images", "seconds", "requests", "batch"):
            if not 0 < (value := getattr(self, name)) < math.inf:
                raise ConfigError(f"{name} = {value}; expected more than 0, and finite")
        if self.max_pixels > PILLOW_MAX_PIXELS:
            raise ConfigError(
                f"max_pixels = {self.max_pixels}; expected at most {PILLOW_MAX_PIXELS}, "
                "above which Pillow refuses"
            )
