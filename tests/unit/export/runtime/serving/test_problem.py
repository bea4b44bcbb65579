from export.runtime.serving.problem import Problem


def test_a_problem_is_plain_json_and_says_when_to_come_again() -> None:
    busy = Problem(503, "busy", "come again")
    assert busy.to_dict() == {"error": {"code": "busy", "message": "come again"}}
    assert busy.headers == {"Retry-After": "1"}
    assert Problem(422, "query", "no").headers == {}
