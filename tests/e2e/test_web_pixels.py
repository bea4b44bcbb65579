"""The page computes what Python computes: pixels, inputs and probabilities of a hundred images."""

import base64
import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from playwright.sync_api import Page

from export.runtime import Classifier
from fedprompt.backbone.load import load_backbone
from fedprompt.data.decode import decode
from fedprompt.data.preprocess import Preprocessing, fit_to_input
from fedprompt.settings.backbone import BackboneConfig
from tests.browser import chromium
from tests.photographs import Photo, foreign_profile, hundred, scene
from tests.web_folder import served, write_page

CLASSES = ("cat", "dog", "ship", "apple", "red square", "striped shirt", "bicycle", "sunset", "owl")
TOLERANCE = 1e-2  # of a probability
SCRIPT = """
async ([task, ...given]) => {
  const { decode } = await import("./decode.js");
  const { fitToInput } = await import("./preprocess.js");
  const { openClassifier } = await import("./classifier.js");
  window.classifier ??= await openClassifier(() => {}, "WebAssembly");
  const bytes = (text) => Uint8Array.fromBase64(text);
  const text = (array) => new Uint8Array(array.buffer, array.byteOffset, array.length).toBase64();
  const told = ({ width, height, data }) => [width, height, text(data)];
  const tasks = {
    decode: async (photo) => told(await decode(new Blob([bytes(photo)]), 64e6)),
    fit: async (width, height, data, facts) =>
      told(fitToInput({ width, height, data: bytes(data) }, facts)),
    classify: async (photo) => {
      const pixels = await decode(new Blob([bytes(photo)]), 64e6);
      const input = fitToInput(pixels, window.classifier.facts);
      return [told(input), await window.classifier.probabilities(input)];
    },
  };
  return tasks[task](...given);
}
"""

Pixels = npt.NDArray[np.uint8]
Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    clip = load_backbone(BackboneConfig(name="embedded", device="cpu"))
    folder = tmp_path_factory.mktemp("web") / "page"
    write_page(clip, CLASSES, folder)
    return folder


@pytest.fixture(scope="module")
def ask(folder: Path) -> Iterator[Ask]:
    with served(folder) as (address, _), chromium() as browser:
        page: Page = browser.new_page()
        page.goto(address)
        yield lambda *task: page.evaluate(SCRIPT, task)


def text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def pixels(told: list[Any]) -> Pixels:
    width, height, data = told
    return np.frombuffer(base64.b64decode(data), np.uint8).reshape(height, width, 3)


def test_a_hundred_images_are_classified_as_in_python(ask: Ask, folder: Path) -> None:
    classifier = Classifier(folder.parent / "page.onnx")
    photos = hundred()
    found = [ask("classify", text(photo.content)) for photo in photos]
    inputs = np.stack([fit_to_input(decode(p.content), _pre(classifier)) for p in photos])
    logits = classifier.logits(inputs).astype(np.float64)
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    for photo, pixels_told, row, (told, shares) in zip(
        photos, inputs, expected, found, strict=True
    ):
        difference = np.abs(pixels(told).astype(int) - pixels_told)
        # Skia and Pillow round half-transparent pixels of WebP to neighbouring bytes
        assert difference.max() <= (2 if "webp-alpha" in photo.name else 0), photo.name
        assert np.argmax(shares) == row.argmax(), photo.name
        assert np.abs(np.array(shares) - row).max() < TOLERANCE, photo.name
    assert len({int(row.argmax()) for row in expected}) > 2, "the images are all of one class"


def _pre(classifier: Classifier) -> Preprocessing:
    return classifier.metadata.preprocessing


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def odd_photos() -> list[Photo]:
    rng = np.random.default_rng(0)
    wide = Image.fromarray(rng.integers(0, 256, (9, 4200, 3), dtype=np.uint8))
    xmp = b'<x tiff:Orientation="6"/>'
    picture = scene(7)
    return [
        Photo("wider than two tiles", encoded(wide, "PNG")),
        Photo("higher than two tiles", encoded(wide.transpose(Image.Transpose.ROTATE_90), "PNG")),
        Photo("a single pixel", encoded(Image.new("RGB", (1, 1), (9, 99, 199)), "PNG")),
        Photo("jpeg turned by XMP", encoded(picture, "JPEG", xmp=xmp)),
        Photo("webp turned by XMP", encoded(picture, "WEBP", lossless=True, xmp=xmp)),
        Photo("cmyk", encoded(picture.convert("CMYK"), "JPEG", quality=95)),
        Photo("jpeg in rgb", encoded(picture, "JPEG", keep_rgb=True)),
        Photo("png of one bit", encoded(picture.convert("1"), "PNG")),
        Photo("webp with a profile", encoded(picture, "WEBP", icc_profile=foreign_profile())),
    ]


@pytest.mark.parametrize("photo", odd_photos(), ids=lambda photo: photo.name)
def test_odd_images_are_decoded_as_in_python(ask: Ask, photo: Photo) -> None:
    found, expected = pixels(ask("decode", text(photo.content))), decode(photo.content)
    assert found.shape == expected.shape
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("orientation", range(9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_every_orientation(ask: Ask, kind: str, orientation: int) -> None:
    image = Image.fromarray(
        np.arange(2 * 16 * 24 * 3, dtype=np.uint16).astype(np.uint8).reshape(32, 24, 3)
    )
    exif = image.getexif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    content = encoded(image, kind, exif=exif, **options)
    assert np.array_equal(pixels(ask("decode", text(content))), decode(content))


SHAPES = [
    (64, 64),
    (64, 99),
    (30, 47),
    (301, 200),
    (90, 700),
    (700, 90),
    (65, 64),
    (1, 9),
    (3, 16_000),
]


@pytest.mark.parametrize("mode", ["shortest", "squash", "longest"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_inputs_are_equal_to_the_bit(
    ask: Ask, shape: tuple[int, int], interpolation: str, mode: str
) -> None:
    image = np.random.default_rng(shape[0]).integers(0, 256, (*shape, 3), dtype=np.uint8)
    for size in (64, 33):
        pre = Preprocessing(size=size, interpolation=interpolation, resize_mode=mode, fill=77)
        found = ask("fit", shape[1], shape[0], text(image.tobytes()), pre.to_dict())
        assert np.array_equal(pixels(found), fit_to_input(image, pre)), size


def test_a_strip_that_would_grow_beyond_memory(ask: Ask) -> None:
    image = np.random.default_rng(0).integers(0, 256, (2, 40_000, 3), dtype=np.uint8)
    for pre in (Preprocessing(size=64), replace(Preprocessing(size=64), interpolation="bilinear")):
        for turned in (image, np.ascontiguousarray(image.transpose(1, 0, 2))):
            height, width, _ = turned.shape
            found = ask("fit", width, height, text(turned.tobytes()), pre.to_dict())
            assert np.array_equal(pixels(found), fit_to_input(turned, pre))
