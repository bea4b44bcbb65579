"""The record of a round: what it refuses, how it is written, and how phases make one."""

import json
from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from fedprompt.round_record import Measure, RecordedVerdict, RoundRecord, SiteScore

NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)


def test_a_round_comes_back_from_its_line():
    record = RoundRecord(
        round=3, run="ab", seconds=0.5, time=NOON, version="0.1.0", asked=(0, 2), accepted=(2,),
        verdicts=(RecordedVerdict(site=0, node=7, accepted=False, reasons=("norm",)),),
        outliers={2: Measure(distance=1.0, cosine=0.5)}, arrived={2: "ff"}, loss=1.25,
        accuracy=0.75, sites={10: SiteScore(accuracy=0.5, examples=4, nll=0.7)}, nodes={10: 1},
    )  # fmt: skip
    assert RoundRecord.model_validate_json(record.to_json()) == record


def test_a_line_has_the_fields_that_were_set_and_no_others():
    record = RoundRecord(round=0, joined=(0, 1), refused=(), loss=None, nodes={10: 1, 9: 2})
    line = b'{"joined":[0,1],"loss":null,"nodes":{"10":1,"9":2},"refused":[],"round":0}\n'
    assert record.to_json() == line


def test_the_time_is_iso_8601_in_utc_and_no_other():
    line = json.loads(RoundRecord(round=0, time=NOON).to_json())
    assert line["time"] == "2026-11-29T12:00:00Z"
    with pytest.raises(ValidationError, match="timezone"):
        RoundRecord(round=0, time=NOON.replace(tzinfo=None))


def test_what_an_earlier_release_wrote_lacks_time_and_version():
    record = RoundRecord.model_validate_json(b'{"round":1,"accuracy":0.5}')
    assert (record.time, record.version, record.accuracy) == (None, "", 0.5)


def test_a_key_of_a_later_release_is_ignored():
    assert RoundRecord.model_validate_json(b'{"round":1,"mood":{"a":[1]}}') == RoundRecord(round=1)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_a_computed_number_that_json_refuses_ends_no_run(number):
    record = RoundRecord(
        round=0, loss=number, sites={0: SiteScore(accuracy=1.0, examples=3, nll=number)}
    )
    line = json.loads(record.to_json())
    assert (line["loss"], line["sites"]["0"]["nll"]) == (None, None)


@pytest.mark.parametrize("text", [b"NaN", b"Infinity", b"1e999", b'"1"', b"[]", b"true"])
def test_such_a_number_in_a_file_is_damage(text):
    with pytest.raises(ValidationError):
        RoundRecord.model_validate_json(b'{"round":0,"loss":%s}' % text)


def test_phases_make_one_record_and_the_later_one_wins():
    trained = RoundRecord(round=1, asked=(0, 1), loss=0.5, bytes_up=3)
    scored = RoundRecord(round=1, accuracy=0.25, loss=None)
    record = trained | scored
    assert record == RoundRecord(round=1, asked=(0, 1), loss=None, bytes_up=3, accuracy=0.25)
    assert record.model_fields_set == {"round", "asked", "loss", "bytes_up", "accuracy"}
    assert trained.loss == 0.5


def test_every_byte_and_every_verdict_of_a_round_is_counted():
    fields = RoundRecord.model_fields
    ends = "bytes_up", "bytes_down"
    up, down = ([name for name in fields if name.endswith(end)] for end in ends)
    record = RoundRecord(round=0, **dict.fromkeys(up, 1), **dict.fromkeys(down, 10))
    assert (record.total_bytes_up, record.total_bytes_down) == (len(up), 10 * len(down))
    told = {n for n, field in fields.items() if field.annotation == tuple[RecordedVerdict, ...]}
    each = {name: (RecordedVerdict(node=i, accepted=False),) for i, name in enumerate(sorted(told))}
    nodes = [v.node for _, verdicts in RoundRecord(round=0, **each).phases() for v in verdicts]
    assert sorted(nodes) == list(range(len(told)))


def test_summary_reads_like_a_log_line():
    record = RoundRecord(
        round=2, asked=(0, 1, 2), accepted=(0, 2), loss=1.25, accuracy=0.5,
        worst_client_acc=0.25, bytes_up=4624, bytes_down=4600, seconds=1.26,
        verdicts=(
            RecordedVerdict(site=1, node=11, accepted=False),
            RecordedVerdict(site=0, node=10, accepted=True),
        ),
    )  # fmt: skip
    assert record.summary(10) == (
        "round 2/10, 2 of 3 sites, loss 1.2500, accuracy 0.5000, worst 0.2500, "
        "4,624 bytes up, 4,600 down, refused sites [1], 1.3 s"
    )


def test_summary_of_an_unevaluated_round_is_short():
    assert RoundRecord(round=0).summary(3) == "round 0/3, 0.0 s"


def test_a_private_round_tells_what_was_spent():
    record = RoundRecord(round=2, seconds=1.0, epsilon=1.7512)
    assert record.summary(3) == "round 2/3, epsilon 1.75, 1.0 s"
