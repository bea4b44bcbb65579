import hashlib
import json

import numpy as np
import pytest
from flwr.app import MetricRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

from fedprompt.prompts.build import recipe_of
from fedprompt.prompts.methods import METHODS
from fedprompt.prompts.recipe import Recipe
from fedprompt.wire import to_array_record
from server.rounds.inbox import MOST_OBJECTS, unpacked_size
from tests.unit.fedprompt.prompts.coupled import trained_in


class Tree:
    """Store objects as Flower does, each under its hash."""

    def __init__(self) -> None:
        self.contents: dict[str, bytes] = {}

    def put(self, kind: str, children: list[str], body: bytes) -> str:
        content = f"{kind} {','.join(children)} {len(body)}".encode() + b"\0" + body
        name = hashlib.sha256(content).hexdigest()
        self.contents[name] = content
        return name

    def array(self, chunk: str, times: int) -> str:
        return self.put("Array", [chunk], json.dumps({"arraychunk_ids": [0] * times}).encode())

    def size(self, name: str) -> int:
        return unpacked_size(name, self.contents)


@pytest.mark.parametrize("times", [0, 1, 3, 1000])
def test_a_chunk_counts_as_often_as_it_is_named(times: int) -> None:
    tree = Tree()
    chunk = tree.put("ArrayChunk", [], bytes(100))
    array = tree.array(chunk, times)
    body = len(tree.contents[array].partition(b"\0")[2])
    assert tree.size(array) == body + 100 * max(times, 1)  # listed is unpacked, named or not


def test_an_array_counts_for_every_name_it_has() -> None:
    tree = Tree()
    array = tree.array(tree.put("ArrayChunk", [], bytes(100)), 1)
    names = json.dumps({"a": array, "b": array, "c": array}).encode()
    record = tree.put("ArrayRecord", [array], names)
    assert tree.size(record) == len(names) + 3 * tree.size(array)


def test_names_upon_names_are_added_up_at_once() -> None:
    """A thousand names a level and four levels name 10^12 chunks; each object is looked at once."""
    tree = Tree()
    below = tree.array(tree.put("ArrayChunk", [], bytes(100)), 1000)
    for kind in ("ArrayRecord", "RecordDict"):
        below = tree.put(kind, [below], json.dumps({str(n): below for n in range(1000)}).encode())
    message = tree.put("Message", [below], b"")
    assert tree.size(message) > 100 * 1000**3


@pytest.mark.parametrize("kind", ["Array", "ArrayRecord", "RecordDict", "Message"])
def test_a_parent_below_its_like_is_refused(kind: str) -> None:
    tree = Tree()
    inner = tree.put("Message", [], b"")
    body = {"arraychunk_ids": [0]} if kind == "Array" else {"x": inner}
    outer = tree.put(kind, [inner], json.dumps(body).encode())
    with pytest.raises(ValueError, match="where its parent may not have it"):
        tree.size(outer)


@pytest.mark.parametrize("content", [b"", b"Array", b"Array  x", b"\xff  0\0", b"RecordDict  1\0{"])
def test_what_is_no_object_raises_what_exchange_expects(content: bytes) -> None:
    with pytest.raises((ValueError, LookupError, TypeError, AttributeError)):
        unpacked_size("x", {"x": content})


@pytest.mark.parametrize("form", ["full", "lowrank"])
@pytest.mark.parametrize("method", [n for n in METHODS if isinstance(recipe_of(n), Recipe)])
def test_the_largest_reply_of_every_method_has_far_fewer_objects(method: str, form: str) -> None:
    """In as many blocks as the largest CLIP has, ViT-bigG-14: 32 of text and 48 of images."""
    needs = {"tokens": 2, "form": form}
    needs |= {"domains": "ink, clay"} if method == "adapt" else {}
    count = len(trained_in(method, texts=32, images=48, **needs))
    arrays = {f"{i}": np.full(1, i, np.float32) for i in range(count)}
    metrics = MetricRecord({"num-examples": 1, "receipt": 1, "loss": 1.0})
    content = RecordDict({"arrays": to_array_record(arrays, "float32"), "metrics": metrics})
    objects = 1 + len(get_all_nested_objects(content))  # and the message
    assert objects == 4 + 2 * count
    assert objects < 0.7 * MOST_OBJECTS
