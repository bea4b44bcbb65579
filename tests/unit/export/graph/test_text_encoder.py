from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from torch.nn import functional as F

from export.graph.builder import serialise
from export.graph.text_encoder import read_text_tower, text_encoder
from export.runtime.providers import CPU
from export.runtime.session import start
from fedprompt.backbone.clip import FrozenClip
from fedprompt.backbone.prompts import TextPrompts
from fedprompt.errors import GraphError
from tests.conftest import tiny_clip

Vectors = npt.NDArray[np.float32]
TEXTS = ["X X owl.", "X X a great white shark!!x, at sea.", "X X o"]
BOUND = 1e-5  # of a number of a unit vector: float32 of another order of summation


def drawn(layers: int, seed: int = 0) -> Vectors:
    return np.random.default_rng(seed).normal(size=(layers, 2, 32)).astype(np.float32)


def expected(clip: FrozenClip, context: Vectors | None) -> Vectors:
    prompts = None if context is None else TextPrompts(tokens=torch.from_numpy(context))
    with torch.no_grad():
        found: Vectors = F.normalize(
            clip.encode_text(clip.tokenize(TEXTS), prompts), dim=-1
        ).numpy()
    return found


@pytest.mark.parametrize(
    ("layers", "text"),
    [
        (0, {}),
        (1, {"ls_init_value": 0.3}),
        (3, {"pool_type": "eos", "eos_id": 49407}),
        (2, {"heads": 2}),
    ],
)
def test_the_graph_answers_as_torch(layers: int, text: dict[str, Any]) -> None:
    clip = tiny_clip(**text)
    context = drawn(layers) if layers else None
    model = text_encoder(read_text_tower(clip), context)
    serialise(model, "text")
    session, tokens = start(model.SerializeToString(), [CPU]), clip.tokenize(TEXTS).numpy()
    for length in (77, 20):  # behind the longest text nothing is read
        (found,) = session.run(None, {"tokens": tokens[:, :length]})
        assert np.abs(found - expected(clip, context)).max() < BOUND
    (one,) = session.run(None, {"tokens": tokens[1:2]})
    assert np.abs(one - expected(clip, context)[1:2]).max() < BOUND


def test_another_prompt_may_be_given() -> None:
    clip = tiny_clip()
    session = start(text_encoder(read_text_tower(clip), drawn(2)).SerializeToString(), [CPU])
    fed = {"tokens": clip.tokenize(TEXTS).numpy(), "context": drawn(2, seed=1)}
    (found,) = session.run(None, fed)
    assert np.abs(found - expected(clip, fed["context"])).max() < BOUND
    assert np.abs(found - expected(clip, drawn(2))).max() > 100 * BOUND


def test_onnx_s_own_evaluator_agrees() -> None:
    clip = tiny_clip()
    model = text_encoder(read_text_tower(clip), drawn(1))
    (found,) = ReferenceEvaluator(model).run(None, {"tokens": clip.tokenize(TEXTS).numpy()[:, :20]})
    assert np.abs(found - expected(clip, drawn(1))).max() < BOUND


def test_rows_that_tokens_share_are_stored_once() -> None:
    clip = tiny_clip()
    with torch.no_grad():
        clip.model.token_embedding.weight[20000:] = clip.model.token_embedding.weight[7]
    model = text_encoder(read_text_tower(clip), drawn(1))
    sizes = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    assert sizes["embedding"] == [20000, 32]
    session = start(model.SerializeToString(), [CPU])
    (found,) = session.run(None, {"tokens": clip.tokenize(TEXTS).numpy()})
    assert np.abs(found - expected(clip, drawn(1))).max() < BOUND


def test_rows_that_stand_elsewhere_are_given_their_places() -> None:
    """Anywhere, in any order of the classes; the prompt may be another one still."""
    clip = tiny_clip()
    model = text_encoder(read_text_tower(clip), drawn(1), leading=False)
    serialise(model, "text")
    tokens = clip.tokenize(TEXTS)
    places = torch.full_like(tokens, -1)
    for row, found in enumerate([(1, 2), (2, 5), (3, 1)]):
        places[row, list(found)] = torch.arange(2)
    session = start(model.SerializeToString(), [CPU])
    fed = {"tokens": tokens.numpy(), "places": np.where(places < 0, 2, places)}
    for context in (None, drawn(1, seed=1)):
        (found,) = session.run(None, fed if context is None else fed | {"context": context})
        given = torch.from_numpy(drawn(1) if context is None else context)
        with torch.no_grad():
            prompts = TextPrompts(tokens=given, places=places)
            wanted = F.normalize(clip.encode_text(tokens, prompts), dim=-1).numpy()
        assert np.abs(found - wanted).max() < BOUND


def test_sizes_are_read() -> None:
    text = read_text_tower(tiny_clip())
    assert (text.width, text.joint, text.heads, len(text.blocks)) == (32, 24, 4, 3)
    assert (text.activation, text.end) == ("gelu", None)
    assert text.embedding.shape == (49408, 32)


@pytest.mark.parametrize("settings", [{"no_causal_mask": True}, {"pool_type": "last"}])
def test_a_tower_that_reads_elsewhere_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(GraphError, match=r"causal.*without --open-vocabulary"):
        read_text_tower(tiny_clip(**settings))
