"""Property tests of every parser of outside bytes; `python -m tools.fuzz` goes deeper."""

import contextlib
import warnings

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fedprompt.errors import FedpromptError
from tests.fuzz.targets import TARGETS
from tools.fuzz.mutate import inputs

EXAMPLES = 150
FEW = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)


def feed(name: str, data: bytes) -> None:
    """Feed one input; only the error tree may leave the parser."""
    with warnings.catch_warnings(), contextlib.suppress(FedpromptError):
        warnings.simplefilter("ignore")  # numbers at their limits may warn
        TARGETS[name].feed(data)


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("data", [b"", b"\0", b"\1", b"\2"])
def test_nothing_at_all_never_crashes(name: str, data: bytes) -> None:
    feed(name, data)


@pytest.mark.parametrize("name", TARGETS)
def test_honest_inputs_pass(name: str) -> None:
    """Otherwise mutation would start from nothing and every test here would be hollow."""
    passed = 0
    for data in TARGETS[name].seeds():
        try:
            TARGETS[name].feed(data)
        except FedpromptError:
            continue
        passed += 1
    assert passed >= 2


@pytest.mark.parametrize("name", TARGETS)
@FEW
@given(data=st.data())
def test_bent_honest_inputs_never_crash(name: str, data: st.DataObject) -> None:
    seeds = TARGETS[name].seeds() if name not in _SEEDS else _SEEDS[name]
    content = bytearray(data.draw(st.sampled_from(_SEEDS.setdefault(name, seeds))))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content)))
        removed = data.draw(st.integers(0, 8))
        content[place : place + removed] = data.draw(st.binary(max_size=8))
    feed(name, bytes(content))


@pytest.mark.parametrize("name", TARGETS)
@FEW
@given(data=st.binary(max_size=400))
@example(data=b"[" * 5000)
@example(data=b"\1" + b"[" * 5000)
@example(data=b"\2" + b"[" * 5000)
@example(data=b"9" * 6000)
def test_any_bytes_never_crash(name: str, data: bytes) -> None:
    feed(name, data)


@pytest.mark.parametrize("name", TARGETS)
def test_the_mutator_of_the_command_never_crashes_them(name: str) -> None:
    target = TARGETS[name]
    for _, data in zip(range(EXAMPLES), inputs(target.seeds(), 4096, seed=1), strict=False):
        feed(name, data)


_SEEDS: dict[str, list[bytes]] = {}
