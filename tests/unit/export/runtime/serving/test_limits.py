from dataclasses import fields

import pytest

from export.runtime.serving.limits import ErrorResponse, Limits
from fedprompt.errors import ConfigError


@pytest.mark.parametrize("name", [field.name for field in fields(Limits)])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_every_limit_is_above_zero(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"{name} = {value}; expected more than 0"):
        Limits(**{name: value})  # type: ignore[arg-type]


def test_more_pixels_than_pillow_takes() -> None:
    with pytest.raises(ConfigError, match="above which Pillow refuses"):
        Limits(max_pixels=200_000_000)


def test_a_problem_is_plain_json_and_says_when_to_come_again() -> None:
    busy = ErrorResponse(503, "busy", "come again")
    assert busy.to_dict() == {"error": {"code": "busy", "message": "come again"}}
    assert busy.headers == {"Retry-After": "1"}
    assert ErrorResponse(422, "query", "no").headers == {}
