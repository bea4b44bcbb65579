"""Carry SecAgg+'s four exchanges over the run's grid, and keep out what no sum may contain."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from flwr.app import Message, RecordDict
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key, Stage
from flwr.serverapp import Grid

from fedprompt.wire import CONFIG
from server.gate.replies import error_line, fault
from server.gate.verdict import Reason, Verdict, refuse
from server.merge.secure_aggregation.stages import Complaint, Expected, complaint, weight
from server.rounds.exchange import LEAST_ROOM, Answer, Traffic, exchange
from server.run_folder import run_status

_SIZE_CAP = 4  # times the bytes a masked vector has; a larger message is not looked into (F04)
_PER_SITE = 4096  # bytes of one key and its shares, generously

LEAST_SITES = 3  # of two, each finds the other's update by subtracting its own


@dataclass
class Protocol:
    """Hold one try: what to send, who was refused and why, and whose vectors are in the sum."""

    grid: Grid
    contents: Mapping[int, RecordDict]  # the train message of each node
    expected: Expected
    needed: int  # masked vectors, those of abstaining sites too, or the sum is not unmasked
    seconds: float  # one exchange may take
    on_reply: Callable[[int], None]
    refused: dict[int, Complaint] = field(default_factory=dict)  # by node
    weights: dict[int, int] = field(default_factory=dict)  # of the vectors that came, by node
    traffic: Traffic = field(default_factory=lambda: Traffic(0, 0))

    def carry(self, messages: Sequence[Message]) -> list[Message]:
        """Send a stage's messages and return the replies that may be read, by node.

        A sum that `may_unmask` does not allow stays masked: no share is asked for.
        """
        if not messages:
            return []
        stage = str(messages[0].content.config_records[RECORD_KEY_CONFIGS][Key.STAGE])
        if stage == Stage.UNMASK and not self.may_unmask():
            return []
        contents = {
            m.metadata.dst_node_id: self._complete(stage, m.metadata.dst_node_id, m.content)
            for m in messages
        }
        on_reply = self.on_reply if stage == Stage.COLLECT_MASKED_VECTORS else _nobody
        # a masked vector is dense, 8 bytes a number: many times the factors that were sent
        room = max(LEAST_ROOM, self._cap())
        answers, traffic = exchange(self.grid, contents, "train", self.seconds, on_reply, room)
        self.traffic += traffic
        for node in contents.keys() - {answer.node for answer in answers}:
            self.refused.setdefault(node, (Reason.TIMEOUT, f"no reply to {stage} by the deadline"))
        return self._admit(stage, sorted(answers, key=lambda answer: answer.node))

    def may_unmask(self) -> bool:
        """Tell whether enough vectors came, and enough of them hold an update.

        Sites that abstain make a quorum, but hide nobody: the sum of one update is that update, and
        of two, each site finds the other's.
        """
        return len(self.weights) >= self.needed and sum(self.weights.values()) >= LEAST_SITES

    def verdicts(self) -> list[Verdict]:
        """Return what became of each site; one whose vector is in the sum is accepted."""
        found = []
        for node, asked in self.expected.asked.items():
            if node in self.weights:
                reasons = () if self.weights[node] else (Reason.ABSTAINED,)
                found.append(Verdict(asked.site, node, True, reasons))
            elif node in self.refused:
                found.append(refuse(asked.site, node, *self.refused[node]))
            else:
                found.append(Verdict(asked.site, node, True))
        return sorted(found, key=lambda verdict: (verdict.site is None, verdict.site))

    def _complete(self, stage: str, node: int, content: RecordDict) -> RecordDict:
        """Return a stage's message with the task, and in every stage what a site's policy reads."""
        task = self.contents[node]
        told = task if stage == Stage.COLLECT_MASKED_VECTORS else {CONFIG: task[CONFIG]}
        record = content.config_records[RECORD_KEY_CONFIGS]
        return RecordDict({**told, RECORD_KEY_CONFIGS: record})

    def _admit(self, stage: str, answers: Sequence[Answer]) -> list[Message]:
        admitted: dict[int, Message] = {}
        for answer in answers:
            if answer.node in admitted:
                continue  # a link that delivers twice; the first one counts
            with run_status.blaming(self.expected.asked[answer.node].site):
                found = self._complaint(stage, answer)
            if found:
                self.refused.setdefault(answer.node, found)
                continue
            admitted[answer.node] = answer.message
            if stage == Stage.COLLECT_MASKED_VECTORS:
                self.weights[answer.node] = int(bool(weight(answer.message.content)))
        return list(admitted.values())

    def _cap(self) -> int:
        """Return the bytes of a message that is looked into."""
        expected = self.expected
        return _SIZE_CAP * 8 * expected.entries + _PER_SITE * (len(expected.asked) + 1)

    def _complaint(self, stage: str, answer: Answer) -> Complaint | None:
        message, expected = answer.message, self.expected
        if message.has_error():
            reason = fault(message)
            if reason is Reason.ERROR and stage != Stage.SETUP:
                # it has read what other sites sent: whose fault an error is cannot be told
                reason = Reason.PROTOCOL
            return reason, f"{stage}: {error_line(message)}"
        if answer.size > (cap := self._cap()):
            return Reason.OVERSIZED, f"the message has {answer.size} bytes, at most {cap} are read"
        if message.metadata.src_node_id != answer.node:
            detail = f"node {message.metadata.src_node_id} answered for {answer.node}"
            return Reason.IDENTITY, detail
        return complaint(stage, answer.node, message.content, expected)


def _nobody(count: int) -> None:  # noqa: ARG001 (only the stage that trains is shown)
    return None
