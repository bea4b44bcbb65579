"""What a line of the log is in the table; the command itself is in test_commands.py."""

from client.deployment.status import row, what

ARRAY = {"name": "ctx.B", "shape": [1, 512], "dtype": "float32", "norm": 0.0123, "sha256": "c" * 64}


def test_a_line_tells_when_what_kind_round_and_bytes() -> None:
    line = {"time": "2026-01-02T03:04:05.678+00:00", "kind": "train", "round": 3, "bytes": 2364}
    assert row(line) == "2026-01-02T03:04:05  train     3         2,364  "
    assert row({**line, "round": None}).split() == ["2026-01-02T03:04:05", "train", "-", "2,364"]


def test_an_answer_is_told_by_its_arrays_metrics_and_identity_in_order() -> None:
    told = what(
        {
            "arrays": [ARRAY],
            "metrics": {"loss": 0.25, "count": 4},
            "identity": {"version": "1", "backbone": "b" * 64},
        }
    )
    assert told == (
        "ctx.B 1x512 float32 norm 0.0123 sha256 cccccccccccc, count=4, loss=0.25, "
        "backbone=bbbbbbbbbbbbbbbbbbbbbbbb, version=1"
    )


def test_a_refusal_is_told_alone() -> None:
    assert what({"error": "refused: min_sites", "arrays": [ARRAY]}) == "error: refused: min_sites"


def test_what_others_wrote_into_the_log_cannot_break_the_table() -> None:
    assert row({"before": "x"})
    assert row({"round": {}, "kind": None, "bytes": 3, "arrays": []})
