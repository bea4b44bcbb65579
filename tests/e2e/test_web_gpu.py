"""WebGPU, computed by SwiftShader, answers as Python does."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from export.runtime import Classifier
from tests.browser import GRAPHICS, chromium
from tests.conftest import CLASSES, tiny_clip
from tests.e2e.test_web_page import THREE_AT_ONCE
from tests.web_folder import served, write_page


@pytest.mark.slow
def test_webgpu_answers_as_python_does(tmp_path: Path) -> None:
    classes = tuple(dict.fromkeys(CLASSES))
    classifier = Classifier(write_page(tiny_clip(), classes, tmp_path / "page"))
    pixels = np.random.default_rng(3).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    photo = tmp_path / "photo.png"
    Image.fromarray(pixels).save(photo)
    [wanted] = classifier.predict([photo], top_k=len(classes))
    with served(tmp_path / "page") as (address, _), chromium(*GRAPHICS) as browser:
        page = browser.new_page()
        page.goto(address)
        expect(page.locator("#facts")).to_contain_text("WebGPU", timeout=240_000)
        page.set_input_files("#photo", photo)
        expect(page.locator("#result")).to_be_visible(timeout=180_000)
        assert "WebGPU" in page.locator("#facts").inner_text(), "it did not fail and fall back"
        page.locator("#rest").evaluate("(details) => { details.open = true; }")
        names = page.locator("#all th").all_inner_texts()
        shares = page.locator("#all td").all_inner_texts()
        page.close()
        page = browser.new_page()
        page.goto(f"{address}icon.svg")
        assert page.evaluate(THREE_AT_ONCE) == ["WebGPU", 3], "photos that come at once"
    found = {n: float(s.split()[-2]) / 100 for n, s in zip(names, shares, strict=True)}
    assert next(iter(found)) == wanted.top
    for name, share in zip(wanted.classes, wanted.probabilities, strict=True):
        assert abs(found[name] - share) < 1e-2
