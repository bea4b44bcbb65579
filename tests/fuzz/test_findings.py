"""Inputs that once left a parser by another door than the error tree, or kept it for minutes."""

import json

import numpy as np
import pytest
from flwr.app import Array

from fedprompt.errors import FedpromptError
from fedprompt.identity import canonical_json
from fedprompt.prompt_state import PromptState
from server.joining.admission import difference
from tests.fuzz.targets import TARGETS
from tests.sites import IDENTITY

DIGITS, DEEP = b"9" * 5000, b"[" * 5000


def _tensors(shape: str) -> bytes:
    entry = '{"a":{"dtype":"F32","shape":%s,"data_offsets":[0,4]}}'
    return b"\1" + (entry % shape).encode() + b"\n\n" + bytes(4)


def _names() -> bytes:
    """80,000 names of which one stands twice: looked for in quadratic time, once."""
    names = ",".join(f'"{number % 79_999}":{{}}' for number in range(80_000))
    return b"\1{" + names.encode() + b"}\n\n"


def _artefact(**changes: object) -> bytes:
    """An honest artefact, some keys changed, its hashes made to fit."""
    text, _, weights = TARGETS["artefacts"].seeds()[0][1:].partition(b"\n\n")
    return b"\1" + json.dumps(json.loads(text) | changes).encode() + b"\n\n" + weights


def _state(**changes: object) -> bytes:
    honest = {"run": "ab", "round": 3, "order": ["x"], "strikes": {"0": 1}, "quarantined": {}}
    return b"\1" + json.dumps(honest | changes).encode() + b"\n\n" + bytes(8)


FINDINGS = {
    "many digits in a shape": ("tensors", _tensors("[1" + "0" * 4000 + ",1" + "0" * 4000 + "]")),
    "many sides in a shape": ("tensors", _tensors("[" + "99," * 100_000 + "1]")),
    "many names": ("tensors", _names()),
    "a version of many digits": ("artefacts", _artefact(fedprompt_version="9" * 5000 + ".0.0")),
    "half a character": ("artefacts", _artefact(classes=["\ud800", "b"])),
    "a number too large for JSON": ("artefacts", _artefact(x=1).replace(b'"x": 1', b'"x": 1e999')),
    "an unknown method": ("prompts", _artefact(method="os.system")),
    "a huge rank": ("prompts", _artefact(rank=10**9)),
    "a template that reads attributes": ("prompts", _artefact(template="{0.__class__} {}")),
    "a template that pads": ("prompts", _artefact(template="{:>999999999}")),
    "a round that is text": ("checkpoints", _state(round="3")),
    "a run that is a number": ("checkpoints", _state(run=3)),
    "strikes that are text": ("checkpoints", _state(strikes={"0": "many"})),
    "a deep state": ("checkpoints", b"\1" + DEEP),
    "NaN in a checkpoint": ("checkpoints", _state()[:-8] + np.float32([np.nan, 0]).tobytes()),
    "a deep TOML file": ("configs", b"\0[data]\nalpha = " + DEEP),
    "a TOML number of many digits": ("configs", b"\0[data]\nalpha = " + DIGITS),
    "an override of many hexadecimal digits": ("configs", b"\1data.limit=0x" + b"f" * 5000),
    "deep settings": ("configs", b"\2" + DEEP),
    "a rule of many hexadecimal digits": ("policies", b"servers = 0x" + b"f" * 5000),
}


@pytest.mark.parametrize("name", FINDINGS)
def test_what_fuzzing_found_is_refused(name: str) -> None:
    target, data = FINDINGS[name]
    with pytest.raises(FedpromptError):
        TARGETS[target].feed(data)


def test_a_deep_class_list_is_refused_at_the_door() -> None:

    assert "not a JSON list" in difference(IDENTITY, IDENTITY | {"classes": "[" * 100_000})
    nested = "[" * 500 + "]" * 500
    canonical_json(difference(IDENTITY, IDENTITY | {"classes": f"[{nested}]"}))


def test_a_rank_that_is_true_is_no_rank() -> None:
    """Shapes come out of JSON where Flower unpacks a reply; it takes true for a whole number."""
    array = Array(dtype="float32", shape=(4, True), stype="raw", data=bytes(16))
    current = PromptState({"ctx.A": np.zeros((4, 2)), "ctx.B": np.zeros((2, 8))})
    assert current.shapes({"ctx.A": array.shape}) == {"ctx.A": (4, 2), "ctx.B": (2, 8)}
