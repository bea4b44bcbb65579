import numpy as np
import pytest
from flwr.app import Message
from flwr.common.serde import message_from_proto, message_to_proto

from benchmarks import bytes as module
from fedprompt.wire import from_array_record

FIXED = {"ctx.A": (4, 1), "ctx.B": (1, 512)}
DOWN, UP = {"ctx": (4, 512)}, {"ctx.B": (1, 512)}


def arrays(shapes):
    return {name: np.ones(shape, np.float32) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def figures():
    return module.ours(arrays(DOWN), arrays(UP))


@pytest.fixture(scope="module")
def published():
    return module.ours(arrays(FIXED), arrays(FIXED))


@pytest.mark.parametrize(("method", "shapes"), [("dip", (DOWN, UP)), ("dip-fixed", (FIXED, FIXED))])
def test_what_travels_on_vit_b_16(method, shapes):
    found = [{n: a.shape for n, a in arrays.items()} for arrays in module.travelling(method)]
    assert tuple(found) == shapes


def test_a_reply_is_as_short_as_promised(figures, published):
    for found, numbers in ((figures, 512), (published, 516)):
        assert found["parameters"] == numbers
        assert 4 * numbers < found["bytes_up"] <= 2500
        assert 2 * numbers < found["bytes_up_fp16"] <= 1400
    assert figures["bytes_up"] < published["bytes_up"]


def test_a_message_down_holds_the_prompt(figures, published):
    for found, numbers in ((figures, 4 * 512), (published, 516)):
        assert 4 * numbers < found["bytes_down"] <= 4 * numbers + 430
        assert 2 * numbers < found["bytes_down_fp16"] <= 2 * numbers + 430


@pytest.mark.parametrize("ending", ["", "_fp16"])
@pytest.mark.parametrize("way", ["up", "down"])
def test_cut_into_objects_a_message_is_longer(figures, way, ending):
    assert figures[f"object_store_bytes_{way}{ending}"] > figures[f"bytes_{way}{ending}"]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_measured_reply_is_a_real_one(dtype):
    reply = module.answered(module.asked(arrays(DOWN), dtype), arrays(UP), dtype)
    found: Message = message_from_proto(message_to_proto(reply))
    assert set(found.content) == {"arrays", "metrics"}
    assert set(found.content["metrics"]) == {"num-examples", "loss", "receipt"}
    assert from_array_record(found.content["arrays"], UP, dtype)["ctx.B"].sum() == 512
    assert len(found.metadata.message_id) == len(found.metadata.reply_to_message_id) == 64


def test_peers_send_more(figures, monkeypatch):
    monkeypatch.setattr(module, "FEDTPG_PARAMETERS", 42_080)
    found = module.peers(512)
    assert 4 * 16 * 512 < found["full_coop"] < 4 * 16 * 512 + 500
    assert 4 * 42_080 < found["fedtpg"] < 4 * 42_080 + 500
    assert 4 * 149_620_737 < found["whole_model"] < 1.001 * 4 * 149_620_737
