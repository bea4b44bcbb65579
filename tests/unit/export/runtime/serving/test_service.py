import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from export.runtime import Classifier
from fedprompt.errors import GraphError

from .conftest import Door, code


def bomb(side: int) -> bytes:
    """Return a PNG that says it is huge and is a few hundred bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        sealed = kind + data
        return struct.pack(">I", len(data)) + sealed + struct.pack(">I", zlib.crc32(sealed))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(1000))
    png = b"\x89PNG\r\n\x1a\n"
    return png + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_a_raw_image_is_answered_as_the_classifier_answers(
    door: Door, classifier: Classifier, photos: list[bytes]
) -> None:
    response = door.post(photos[0], path="/predict?top_k=2")
    assert response.status_code == 200
    [expected] = classifier.predict([photos[0]], top_k=2)
    [found] = response.json()["results"]
    assert found["image"] == "image 0"
    assert [p["class"] for p in found["predictions"]] == list(expected.classes)
    shares = [p["probability"] for p in found["predictions"]]
    np.testing.assert_allclose(shares, expected.probabilities, rtol=1e-4)


def test_a_form_of_several_files_is_answered_in_order(
    door: Door, classifier: Classifier, photos: list[bytes]
) -> None:
    files = [("files", (f"{i}.png", photo)) for i, photo in enumerate(photos)]
    response = door.ask("POST", "/predict", files=files)
    assert response.status_code == 200
    results = response.json()["results"]
    assert [r["image"] for r in results] == ["0.png", "1.png", "2.png"]
    for result, expected in zip(results, classifier.predict(photos), strict=True):
        assert [p["class"] for p in result["predictions"]] == list(expected.classes)


def floating() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((8, 8), np.float32)).save(buffer, "TIFF")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"no image at all", "no image of a known format"),
        (b"\x93NUMPY\x01\x00", "no image of a known format"),
        (bomb(60_000), "bomb"),
        (bomb(9_000), "max_pixels"),
        (floating(), "no white level"),
    ],
    ids=["text", "array", "bomb", "large", "float"],
)
def test_what_cannot_be_read_is_422(door: Door, content: bytes, told: str) -> None:
    response = door.post(content)
    assert (response.status_code, code(response)) == (422, "unreadable_image")
    assert told in response.json()["error"]["message"]


def test_good_images_are_answered_and_bad_ones_among_them_are_named(
    door: Door, classifier: Classifier, photos: list[bytes]
) -> None:
    files = [("a", ("cut.png", photos[1][:200])), ("b", ("good.png", photos[0]))]
    response = door.ask("POST", "/predict", files=files)
    assert response.status_code == 200
    [found] = response.json()["results"]
    [expected] = classifier.predict([photos[0]])
    assert found["image"] == "good.png"
    assert [p["class"] for p in found["predictions"]] == list(expected.classes)
    [error] = response.json()["errors"]
    assert (error["image"], error["code"]) == ("cut.png", "unreadable_image")
    assert "could not be decoded" in error["message"]
    assert door.ask("POST", "/predict", files=files[1:2]).json()["errors"] == []


def test_an_empty_file_among_good_ones_is_one_of_the_bad(door: Door, png: bytes) -> None:
    files = [("a", ("empty.png", b"")), ("b", ("good.png", png))]
    response = door.ask("POST", "/predict", files=files)
    assert response.status_code == 200
    assert [error["image"] for error in response.json()["errors"]] == ["empty.png"]


def test_without_one_good_image_all_are_named(door: Door, photos: list[bytes]) -> None:
    files = [("a", ("cut.png", photos[0][:200])), ("b", ("text.png", b"text"))]
    response = door.ask("POST", "/predict", files=files)
    assert (response.status_code, code(response)) == (422, "unreadable_image")
    message = response.json()["error"]["message"]
    assert message.startswith("cut.png: ")
    assert "; text.png: " in message


def test_a_graph_that_fails_is_500_and_not_ready_until_it_answers(
    door: Door, png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = door.service.classifier.logits

    def broken(images: Any) -> Any:
        raise GraphError("ONNX Runtime failed: out of memory")

    monkeypatch.setattr(door.service.classifier, "logits", broken)
    response = door.post(png)
    assert (response.status_code, code(response)) == (500, "computation_failed")
    assert door.ask("GET", "/health").status_code == 503
    monkeypatch.setattr(door.service.classifier, "logits", original)
    assert door.post(png).status_code == 200
    assert door.ask("GET", "/health").status_code == 200
