import hashlib

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, Metadata, MetricRecord, RecordDict
from flwr.common.serde import message_to_proto
from hypothesis import given, settings
from hypothesis import strategies as st

from fedprompt.wire import (
    RAW,
    SHARED,
    Reason,
    WireError,
    from_array_record,
    identity_digest,
    receipt,
    to_array_record,
)

SHAPES = {"ctx.A": (4, 1), "ctx.B": (1, 512)}
IDENTITY = {key: key[::-1] for key in SHARED}


def default_prompt(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


def spoil(dtype: str = "float32", **changes: object) -> ArrayRecord:
    """Return a record whose ctx.A differs from what was agreed."""
    record = to_array_record(default_prompt(), dtype)
    good = record["ctx.A"]
    fields = {"dtype": good.dtype, "shape": good.shape, "stype": good.stype, "data": good.data}
    record["ctx.A"] = Array(**(fields | changes))
    return record


def refused(record: ArrayRecord, dtype: str = "float32") -> Reason:
    with pytest.raises(WireError) as caught:
        from_array_record(record, SHAPES, dtype)
    return caught.value.reason


def test_float32_arrives_bit_for_bit() -> None:
    sent = default_prompt()
    found = from_array_record(to_array_record(sent, "float32"), SHAPES, "float32")
    assert list(found) == list(SHAPES)
    for name, array in found.items():
        assert array.dtype == np.float32
        assert array.tobytes() == sent[name].tobytes()
        assert not array.flags.writeable


def test_float16_arrives_as_the_nearest_half() -> None:
    sent = default_prompt()
    found = from_array_record(to_array_record(sent, "float16"), SHAPES, "float16")
    for name, array in found.items():
        assert array.dtype == np.float32
        assert np.array_equal(array, sent[name].astype(np.float16).astype(np.float32))


@pytest.mark.parametrize("order", ["C", "F"])
def test_the_bytes_are_little_endian_rows_without_a_header(order: str) -> None:
    array = np.asarray([[1, 2], [3, 4]], ">f4", order=order)
    record = to_array_record({"a": array}, "float32")
    assert record["a"].data == np.array([1, 2, 3, 4], "<f4").tobytes()
    assert (record["a"].stype, record["a"].dtype, tuple(record["a"].shape)) == (
        RAW,
        "float32",
        (2, 2),
    )


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_f01_values_that_are_not_finite(dtype: str, value: float) -> None:
    arrays = default_prompt()
    arrays["ctx.B"][0, 511] = value
    assert refused(to_array_record(arrays, dtype), dtype) is Reason.NOT_FINITE


def test_f01_a_half_that_overflows_is_refused_by_the_receiver() -> None:
    arrays = default_prompt()
    arrays["ctx.A"][0, 0] = 1e6
    assert refused(to_array_record(arrays, "float16"), "float16") is Reason.NOT_FINITE


def test_f02_missing_and_extra_arrays() -> None:
    arrays = default_prompt()
    assert refused(to_array_record(arrays | {"x": arrays["ctx.A"]}, "float32")) is (
        Reason.EXTRA_ARRAY
    )
    del arrays["ctx.B"]
    assert refused(to_array_record(arrays, "float32")) is Reason.MISSING_ARRAY
    assert refused(ArrayRecord()) is Reason.MISSING_ARRAY


@pytest.mark.parametrize("shape", [(4,), (1, 4), (1,), (), (4, 1, 1), (2, 2)])
def test_f02_shapes_are_never_broadcast(shape: tuple[int, ...]) -> None:
    assert refused(spoil(shape=shape)) is Reason.WRONG_SHAPE


def test_f02_dtypes_are_never_cast() -> None:
    assert refused(spoil(dtype="float64", data=bytes(32))) is Reason.WRONG_DTYPE
    assert refused(to_array_record(default_prompt(), "float16")) is Reason.WRONG_DTYPE
    assert refused(spoil(dtype="<f4")) is Reason.WRONG_DTYPE


def test_f02_flowers_numpy_arrays_are_not_read() -> None:
    record = spoil()
    record["ctx.A"] = Array(np.zeros((4, 1), np.float32))
    assert refused(record) is Reason.WRONG_DTYPE


@pytest.mark.parametrize("size", [0, 1, 15, 17, 32])
def test_f03_bytes_that_differ_from_the_shape(size: int) -> None:
    assert refused(spoil(data=bytes(size))) is Reason.WRONG_SIZE


def test_f03_a_claimed_size_is_never_allocated() -> None:
    assert refused(spoil(shape=(10**10, 10**10))) is Reason.WRONG_SHAPE


def test_f04_more_bytes_than_agreed() -> None:
    assert refused(spoil(data=bytes(4 << 20))) is Reason.WRONG_SIZE


@settings(max_examples=300)
@given(
    dtype=st.sampled_from(["float32", "float16", "float64", "", "<f4", "O", "int8", "\0"])
    | st.text(max_size=5),
    shape=st.sampled_from([(4, 1), (4,), ()])
    | st.lists(st.integers(-(2**31), 2**31), max_size=4).map(tuple),
    stype=st.sampled_from([RAW, "numpy.ndarray", ""]),
    data=st.binary(max_size=40) | st.sampled_from([bytes(16), b"\xff" * 16, b"\x93NUMPY"]),
    agreed=st.sampled_from(["float32", "float16"]),
)
def test_nothing_but_a_wire_error_ever_comes_out(
    dtype: str, shape: tuple[int, ...], stype: str, data: bytes, agreed: str
) -> None:
    record = ArrayRecord({"a": Array(dtype=dtype, shape=shape, stype=stype, data=data)})
    size = {"float32": 16, "float16": 8}[agreed]
    fits = (dtype, shape, stype, len(data)) == (agreed, (4, 1), RAW, size)
    values = np.frombuffer(data, f"<f{size // 4}") if fits else np.array([np.nan])
    try:
        found = from_array_record(record, {"a": (4, 1)}, agreed)
    except WireError:
        assert not np.isfinite(values).all()
    else:
        assert np.array_equal(found["a"].reshape(-1), values.astype(np.float32))


def test_a_receipt_is_63_bits_of_the_hash_it_is_said_to_be() -> None:
    digest = hashlib.sha256(b"run|3|7|abc").digest()
    assert receipt("run", 3, 7, "abc") == int.from_bytes(digest[:8], "little") >> 1
    assert all(0 <= receipt("r", n, 0, "i") < 2**63 for n in range(200))


def test_a_receipt_binds_run_round_node_and_identity() -> None:
    asked = [("run", 1, 2, "i"), ("ran", 1, 2, "i"), ("run", 2, 2, "i"), ("run", 1, 1, "i")]
    asked += [("run", 1, 2, "j"), ("run", 2, 1, "i"), ("run", 12, 0, "i"), ("run", 1, 20, "i")]
    assert len({receipt(*one) for one in asked}) == len(asked)


@pytest.mark.parametrize("key", SHARED)
def test_the_digest_covers_every_shared_field(key: str) -> None:
    assert identity_digest(IDENTITY | {key: "other"}) != identity_digest(IDENTITY)


def test_the_digest_covers_nothing_else() -> None:
    more = dict(reversed(IDENTITY.items())) | {"num-examples": "5"}
    assert identity_digest(more) == identity_digest(IDENTITY)


def reply_bytes(dtype: str) -> int:
    """Return the size of a site's reply as it travels: ViT-B/16, rank 1, four tokens."""
    metrics = {"num-examples": 60_000, "receipt": 2**63 - 1, "loss": 0.123456789}
    content = RecordDict(
        {"arrays": to_array_record(default_prompt(), dtype), "metrics": MetricRecord(metrics)}
    )
    metadata = Metadata(
        run_id=2**63 - 1,
        message_id="f" * 64,
        src_node_id=2**63 - 1,
        dst_node_id=1,
        reply_to_message_id="e" * 64,
        group_id="",
        created_at=1_800_000_000.123456,
        ttl=43_200.0,
        message_type="train",
    )
    message = Message(metadata=metadata, content=content)
    return len(message_to_proto(message).SerializeToString())


def test_a_reply_takes_at_most_two_and_a_half_kilobytes() -> None:
    assert 2_064 < reply_bytes("float32") <= 2_500


def test_a_reply_in_halves_takes_at_most_1400_bytes() -> None:
    assert 1_032 < reply_bytes("float16") <= 1_400
