"""What one caller may ask of the service, and how it is refused."""

import math
from dataclasses import asdict, dataclass
from typing import Any

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
        From a request's head to its answer; its body has to arrive within them.
    head_seconds
        For the head of a request, and for a caller to take an answer.
    connections
        At the same time; one more takes the place of one that is idle.
    requests
        Whose body has arrived, waiting or computed at the same time; one more is turned away. As
        many bodies of the largest size may be on their way, others in more and smaller ones; then
        the one that has been on its way longest is given up.
    batch
        Images computed at a time, of several requests if they wait.
    """

    max_bytes: int = 20_000_000
    max_pixels: int = MAX_PIXELS
    max_images: int = 16
    seconds: float = 30.0
    head_seconds: float = 10.0
    connections: int = 512
    requests: int = 32
    batch: int = 16

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not 0 < value < math.inf:
                raise ConfigError(f"{name} = {value}; expected more than 0, and finite")
        if self.max_pixels > PILLOW_MAX_PIXELS:
            raise ConfigError(
                f"max_pixels = {self.max_pixels}; expected at most {PILLOW_MAX_PIXELS}, "
                "above which Pillow refuses"
            )


class ErrorResponse(Exception):  # noqa: N818 (an answer, not an error of the service)
    """End a request with an error that its sender can act on.

    Parameters
    ----------
    status
        Of HTTP.
    code
        Stable, for programs.
    message
        What was found, what was expected, what to do.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"error": {"code": self.code, "message": self.message}}

    @property
    def headers(self) -> dict[str, str]:
        """Return what a client's retries go by."""
        return {"Retry-After": "1"} if self.status == 503 else {}
