import asyncio
import io
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from export.runtime.serving.body import Arrivals
from export.runtime.serving.limits import Limits

from .conftest import Door, code


@pytest.mark.parametrize("kind", ["image/jpeg", "application/octet-stream", "IMAGE/PNG; a=b"])
def test_the_bytes_decide_not_the_type_s_name(door: Door, png: bytes, kind: str) -> None:
    assert door.post(png, kind).status_code == 200


@pytest.mark.parametrize("kind", ["", "text/plain", "application/json", "application/x-npy"])
def test_other_types_are_415(door: Door, png: bytes, kind: str) -> None:
    response = door.post(png, kind)
    assert (response.status_code, code(response)) == (415, "content_type")


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "identity, br", "x"])
def test_a_compressed_body_is_415(door: Door, png: bytes, coding: str) -> None:
    headers = {"content-type": "image/png", "content-encoding": coding}
    response = door.ask("POST", "/predict", content=png, headers=headers)
    assert (response.status_code, code(response)) == (415, "content_type")


@pytest.mark.parametrize("coding", ["identity", "Identity", "IDENTITY , identity", ""])
def test_a_body_that_says_it_is_not_compressed_is_read(door: Door, png: bytes, coding: str) -> None:
    headers = {"content-type": "Image/PNG", "content-encoding": coding}
    assert door.ask("POST", "/predict", content=png, headers=headers).status_code == 200


def test_a_declared_size_past_the_limit_is_413_before_a_byte_is_read(door: Door) -> None:
    async def never() -> AsyncIterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    headers = {"content-type": "image/png", "content-length": "100001"}
    response = door.ask("POST", "/predict", content=never(), headers=headers)
    assert (response.status_code, code(response)) == (413, "body_too_large")


@pytest.mark.parametrize("kind", ["image/png", "multipart/form-data; boundary=x"])
def test_an_undeclared_size_is_read_to_the_limit_only(door: Door, kind: str) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        yield b'--x\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n'
        while True:
            sent += 10_000
            yield bytes(10_000)

    response = door.ask("POST", "/predict", content=endless(), headers={"content-type": kind})
    assert (response.status_code, code(response)) == (413, "body_too_large")
    assert sent <= 110_000


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "image/png"),
        (b"--x--\r\n", "multipart/form-data; boundary=x"),
        (
            b'--x\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n\r\n--x--\r\n',
            "multipart/form-data; boundary=x",
        ),
    ],
    ids=["empty", "empty form", "empty file"],
)
def test_no_image_is_400(door: Door, content: bytes, kind: str) -> None:
    response = door.post(content, kind)
    assert (response.status_code, code(response)) == (400, "no_image")


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"no form", "multipart/form-data; boundary=x"),
        (b"no form", "multipart/form-data"),
        (b"--x\r\nbroken\r\n\r\n", "multipart/form-data; boundary=x"),
        (
            b'--x\r\nContent-Disposition: form-data; name="text"\r\n\r\nhello\r\n--x--\r\n',
            "multipart/form-data; boundary=x",
        ),
    ],
    ids=["no form", "no boundary", "broken header", "a text field"],
)
def test_a_broken_form_is_400(door: Door, content: bytes, kind: str) -> None:
    response = door.post(content, kind)
    assert (response.status_code, code(response)) == (400, "form")


def test_half_a_character_in_a_name_is_answered(door: Door, png: bytes) -> None:
    """Some charsets decode to what no JSON can say."""
    begin = b'--x\r\nContent-Disposition: form-data; name="f"; filename="+2AA-.png"\r\n\r\n'
    kind = "multipart/form-data; boundary=x; charset=utf-7"
    response = door.post(begin + png + b"\r\n--x--\r\n", kind)
    assert response.status_code == 200
    assert response.json()["results"][0]["image"] == "?.png"


def test_too_many_files_are_400(door: Door, png: bytes) -> None:
    files = [("f", (f"{i}.png", png)) for i in range(4)]
    response = door.ask("POST", "/predict", files=files)
    assert (response.status_code, code(response)) == (400, "form")
    assert "Maximum number of files is 3" in response.json()["error"]["message"]


def test_a_body_that_trickles_is_408_and_its_place_is_free(hasty: Door, png: bytes) -> None:
    async def trickle() -> AsyncIterator[bytes]:
        yield png[:10]
        await asyncio.sleep(30)

    response = hasty.post(trickle())
    assert (response.status_code, code(response)) == (408, "body_too_slow")
    assert hasty.service._in_flight == 0


def test_bodies_on_their_way_take_no_place(door: Door, png: bytes) -> None:
    """`door` has two places: ten bodies that do not come leave both to others."""

    async def scene() -> list[int]:
        come = asyncio.Event()

        async def late() -> AsyncIterator[bytes]:
            yield png[:10]
            await come.wait()
            yield png[10:]

        headers = {"content-type": "image/png"}
        async with door.client() as client:
            slow = [
                asyncio.create_task(client.post("/predict", content=late(), headers=headers))
                for _ in range(10)
            ]
            while len(door.service.arrivals) < len(slow):
                await asyncio.sleep(0)
            honest = await client.post("/predict", content=png, headers=headers)
            come.set()
            return [honest.status_code, *{r.status_code for r in await asyncio.gather(*slow)}]

    honest, *late = asyncio.run(scene())
    assert honest == 200
    assert set(late) <= {200, 503}  # all at once they do not fit
    assert len(door.service.arrivals) == 0
    assert door.service._in_flight == 0


def test_bodies_that_take_too_much_memory_together_make_room_the_oldest_first() -> None:
    async def scene() -> list[str]:
        arrivals, told, begun = Arrivals(100), [], asyncio.Event()
        forever = asyncio.get_running_loop().time() + 3600

        async def body(name: str, size: int, *, waits: bool) -> None:
            try:
                async with arrivals.until(forever) as count:
                    count(size)
                    begun.set()
                    if waits:
                        await asyncio.Event().wait()
                told.append(f"{name} came")
            except TimeoutError:
                told.append(f"{name} gave way")

        waiting = [asyncio.create_task(body(name, 45, waits=True)) for name in ("first", "second")]
        await begun.wait()
        await asyncio.sleep(0)
        await body("small", 10, waits=False)
        await body("third", 50, waits=False)
        await waiting[0]
        waiting[1].cancel()
        await asyncio.gather(waiting[1], return_exceptions=True)
        assert len(arrivals) == 0
        return told

    assert asyncio.run(scene()) == ["small came", "third came", "first gave way"]


def test_a_form_leaves_no_file_on_the_disk(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    import tempfile

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a temporary file was made")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    service = door.service
    service.limits = Limits()
    pixels = np.random.default_rng(0).integers(0, 256, (900, 900, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    assert len(buffer.getvalue()) > 2_000_000  # a form's files go to the disk from 1 MB on
    response = door.ask("POST", "/predict", files={"f": ("x.png", buffer.getvalue())})
    assert response.status_code == 200
