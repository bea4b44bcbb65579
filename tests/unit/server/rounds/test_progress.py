"""What a person sees: a live bar on a terminal, plain lines in a log."""

import io
import logging

import pytest
from rich.console import Console

from fedprompt.processes import logs
from fedprompt.round_record import RoundRecord
from server.rounds.progress import LineDisplay, LiveDisplay, LogFeed, display

RECORD = RoundRecord(
    round=1, asked=(0, 1), accepted=(0, 1), loss=1.5, accuracy=0.75,
    worst_client_acc=0.5, bytes_up=4600, bytes_down=4500, seconds=0.5,
)  # fmt: skip


def console(terminal):
    return Console(file=io.StringIO(), force_terminal=terminal, width=80)


def text(found):
    return found.file.getvalue()


@pytest.mark.parametrize(("terminal", "kind"), [(True, LiveDisplay), (False, LineDisplay)])
def test_the_display_suits_the_output(terminal, kind):
    assert isinstance(display(3, console(terminal)), kind)


def test_a_log_gets_one_plain_line_a_round():
    out = console(False)
    with display(3, out) as shown:
        shown.answered(1)
        shown.show(RECORD)
        shown.note("resuming after round 0")
    lines = text(out).splitlines()
    assert lines[0].startswith("round 1/3, 2 of 2 sites, loss 1.5000, accuracy 0.7500")
    assert lines[1:] == ["resuming after round 0"]
    assert "\x1b" not in text(out)


def test_a_terminal_gets_a_bar_with_everything():
    out = console(True)
    with display(3, out) as shown:
        shown.show(RECORD)
        shown.answered(1)
        shown.note("a note")
        shown.show(RECORD | RoundRecord(round=2))
    for part in ("round 2/3", "2 sites", "loss 1.500", "acc 0.750", "↑9.2 kB ↓9 kB", "a note"):
        assert part in text(out)


@pytest.mark.parametrize("terminal", [True, False])
def test_round_zero_is_shown(terminal):
    out = console(terminal)
    with display(3, out) as shown:
        shown.show(RoundRecord(round=0, accuracy=0.5, worst_client_acc=0.4, seconds=1.0))
    assert "0.500" in text(out)


def test_the_feed_passes_rounds_replies_and_messages_on():
    seen = []

    class Spy(LineDisplay):
        def show(self, record):
            seen.append(("show", record.round))

        def answered(self, count):
            seen.append(("answered", count))

        def note(self, text):
            seen.append(("note", text))

    logger = logging.Logger("feed")
    logger.addHandler(LogFeed(Spy(3, console(False))))
    logger.info("x", extra={logs.ROUND: RECORD})
    logger.debug("x", extra={"answered": 4})
    logger.warning("round %d below quorum", 2)
    assert seen == [("show", 1), ("answered", 4), ("note", "round 2 below quorum")]
