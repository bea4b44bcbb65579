"""What is read of a site's answer in each stage; hostile whole rounds are in tests/faults."""

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.common import ndarray_to_bytes
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS
from flwr.supercore.primitives.asymmetric import generate_key_pairs, public_key_to_bytes

from server.gate.verdict import Asked, Reason
from server.merge.secure_aggregation.stages import Expected, complaint, weight

ENTRIES = 6
EXPECTED = Expected(
    {node: Asked(node - 10, 100 + node, 50, lambda old: old == 7) for node in (11, 12, 13)}, ENTRIES
)
PEM = public_key_to_bytes(generate_key_pairs()[1])


def answer(**fields):
    return RecordDict({RECORD_KEY_CONFIGS: ConfigRecord(fields)})


def vectors(size=ENTRIES, dtype=np.int64, count=1, receipt=111, code=0):
    arrays = [ndarray_to_bytes(np.ones(n, dtype)) for n in (1, size)]
    found = answer(masked_params=arrays)
    found["fitres.parameters"] = ArrayRecord()
    found["fitres.num_examples"] = MetricRecord({"num_examples": count})
    found["fitres.metrics"] = ConfigRecord({"receipt": receipt})
    found["fitres.status"] = ConfigRecord({"code": code, "message": ""})
    return found


def reason(stage, content, node=11):
    found = complaint(stage, node, content, EXPECTED)
    return found and found[0]


def test_public_keys_are_keys():
    assert reason("setup", answer(pk1=PEM, pk2=PEM)) is None
    for other in (b"no key", b"", PEM + b" " * 1024, "text"):
        assert reason("setup", answer(pk1=PEM, pk2=other)) == Reason.MALFORMED
    assert reason("setup", answer(pk1=PEM)) == Reason.MALFORMED


@pytest.mark.parametrize(
    ("stage", "nodes", "secrets"),
    [("share_keys", "dsts", "ctxts"), ("unmask", "nids", "shares")],
)
def test_secrets_go_once_to_sites_that_were_asked(stage, nodes, secrets):
    def told(to, texts):
        return reason(stage, answer(**{nodes: to, secrets: texts}))

    assert told([12, 13], [b"a", b"b"]) is None
    assert told([12, 12], [b"a", b"b"]) == Reason.MALFORMED
    assert told([12, 14], [b"a", b"b"]) == Reason.MALFORMED
    assert told([12, 13], [b"a"]) == Reason.MALFORMED
    assert told([12, 13], [b"a", b""]) == Reason.MALFORMED
    assert reason(stage, answer(**{nodes: [12]})) == Reason.MALFORMED


def test_a_masked_vector_has_the_agreed_header_and_size():
    masked = "collect_masked_vectors"
    assert reason(masked, vectors()) is None
    assert reason(masked, vectors(size=ENTRIES + 1)) == Reason.WRONG_SIZE
    assert reason(masked, vectors(size=1)) == Reason.WRONG_SIZE  # numpy would broadcast it
    assert reason(masked, vectors(dtype=np.float64)) == Reason.WRONG_SHAPE


def test_a_masked_vector_is_bound_to_round_and_site():
    masked = "collect_masked_vectors"
    assert reason(masked, vectors(receipt=112)) == Reason.IDENTITY  # another site's
    assert reason(masked, vectors(receipt=7)) == Reason.STALE
    assert reason(masked, vectors(code=1)) == Reason.ERROR
    assert reason(masked, vectors(count=0)) is None
    assert reason(masked, vectors(count=2)) == Reason.BAD_COUNT
    assert weight(vectors(count=0)) == 0
    assert weight(answer()) is None


def test_records_that_were_not_agreed_are_refused():
    more = answer(pk1=PEM, pk2=PEM)
    more["extra"] = ConfigRecord()
    assert reason("setup", more) == Reason.MALFORMED
    assert reason("setup", RecordDict()) == Reason.MALFORMED
    less = vectors()
    del less["fitres.status"]
    assert reason("collect_masked_vectors", less) == Reason.MALFORMED
