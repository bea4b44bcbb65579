"""What an error stands for in each of the four exchanges."""

import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Stage
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from server.gate.verdict import Asked, Reason
from server.merge.secure_aggregation import protocol as module
from server.merge.secure_aggregation.protocol import Protocol
from server.merge.secure_aggregation.stages import Expected
from server.rounds.exchange import Answer, Fault, Traffic
from server.rounds.sampled_grid import ChosenGrid

NODE = 11
STAGES = (Stage.SETUP, Stage.SHARE_KEYS, Stage.COLLECT_MASKED_VECTORS, Stage.UNMASK)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (Fault.WITHHELD, Reason.WITHHELD),
        (Fault.TRESPASS, Reason.TRESPASS),
        (5, Reason.TIMEOUT),  # Flower's code for a node that is gone
        (2, None),  # the site's own: its fault in the first exchange only
    ],
)
def test_F29_a_fault_that_the_server_found_is_told_in_every_exchange(
    monkeypatch, stage, code, expected
):
    for name in ("_run_id", "_task_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    message = Message(RecordDict(), NODE, "train")
    reply = Message(Error(code, "why"), reply_to=message)
    monkeypatch.setattr(module, "exchange", lambda *_: ([Answer(NODE, reply, 0)], Traffic(0, 0)))
    asked = {NODE: Asked(1, 100, 50, lambda _: False)}
    contents = {NODE: RecordDict({"config": ConfigRecord({"round": 1})})}
    grid = ChosenGrid([NODE], Run.create_empty(1))
    protocol = Protocol(grid, contents, Expected(asked, 6), 0, 1.0, lambda _: None)
    protocol.weights = dict.fromkeys(range(5), 1)  # else no share is asked for
    sent = RecordDict({RECORD_KEY_CONFIGS: ConfigRecord({"stage": stage})})
    assert protocol.carry([Message(sent, NODE, "train")]) == []
    first = Reason.ERROR if stage == Stage.SETUP else Reason.PROTOCOL
    assert protocol.refused[NODE][0] == (expected or first)
