"""What the service answers when it cannot: a status, a stable code, a sentence."""

from typing import Any


class Problem(Exception):  # noqa: N818 (an answer, not an error of the service)
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
