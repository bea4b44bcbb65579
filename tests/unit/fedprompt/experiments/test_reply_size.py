import numpy as np
import pytest
from flwr.common.serde import message_from_proto, message_to_proto

from benchmarks import bytes as benchmark
from fedprompt.experiments.reply_size import NODE, addressed, answered, identify, reply_bytes
from fedprompt.prompt_state import PromptState
from fedprompt.wire import from_array_record

DEFAULT = {"ctx.A": (4, 1), "ctx.B": (1, 512)}


def arrays(value=1.0):
    return PromptState({name: np.full(shape, value) for name, shape in DEFAULT.items()})


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_it_is_the_benchmarks_reply_to_the_servers_real_message(dtype):
    asked = benchmark.asked(arrays(), dtype)
    real = len(message_to_proto(answered(asked, arrays(), dtype)).SerializeToString())
    assert reply_bytes(arrays(), dtype) == real
    assert reply_bytes(arrays(7.25), dtype) == real


def test_each_number_costs_its_bytes():
    sizes = {
        (n, dtype): reply_bytes(PromptState({"ctx": np.zeros((n, 512))}), dtype)
        for n in (16, 32)
        for dtype in ("float32", "float16")
    }
    framing = sizes[16, "float32"] - 4 * 16 * 512
    assert 0 < framing < 400
    assert abs(sizes[32, "float32"] - sizes[16, "float32"] - 4 * 16 * 512) < 8  # length fields
    assert abs(sizes[16, "float32"] - sizes[16, "float16"] - 2 * 16 * 512) < 8


def test_what_is_measured_can_be_read():
    from flwr.app import Message, RecordDict

    identify(server=True)
    question = addressed(Message(RecordDict(), NODE, "train"))
    reply = message_from_proto(message_to_proto(answered(question, arrays(), "float32")))
    found = from_array_record(reply.content["arrays"], DEFAULT, "float32")
    assert found["ctx.B"].sum() == 512
    assert reply.metadata.reply_to_message_id == question.metadata.message_id
