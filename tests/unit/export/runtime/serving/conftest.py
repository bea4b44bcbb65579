import asyncio
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from export.runtime import Classifier
from export.runtime.serving.app import make_app
from export.runtime.serving.limits import Limits
from export.runtime.serving.service import Service


def encoded(colour: tuple[int, int, int] = (200, 10, 10), kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 36), colour).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture
def png() -> bytes:
    return encoded()


@pytest.fixture
def photos() -> list[bytes]:
    rng = np.random.default_rng(7)
    found = []
    for _ in range(3):
        buffer = io.BytesIO()
        pixels = rng.integers(0, 256, (50, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(buffer, "PNG")
        found.append(buffer.getvalue())
    return found


@pytest.fixture
def classifier(classifier_file: Path) -> Classifier:
    return Classifier(classifier_file, threads=1)


class Door:
    """Ask an application in this process."""

    def __init__(self, service: Service) -> None:
        self.service, self.app = service, make_app(service)

    def client(self) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://door")

    def ask(self, method: str, path: str, **request: Any) -> httpx.Response:
        async def once() -> httpx.Response:
            async with self.client() as client:
                return await client.request(method, path, **request)

        return asyncio.run(once())

    def post(self, content: Any, kind: str = "image/png", path: str = "/predict") -> httpx.Response:
        return self.ask("POST", path, content=content, headers={"content-type": kind})


@pytest.fixture
def door(classifier: Classifier) -> Iterator[Door]:
    service = Service(classifier, Limits(max_bytes=100_000, max_images=3, requests=2))
    yield Door(service)
    service.close()


def code(response: httpx.Response) -> str:
    """Return an error's code; every error has this shape and no other key."""
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"code", "message"}
    assert body["error"]["message"]
    found: str = body["error"]["code"]
    return found


@pytest.fixture
def single(classifier: Classifier) -> Iterator[Door]:
    service = Service(classifier, Limits(requests=1))
    yield Door(service)
    service.close()


@pytest.fixture
def hasty(classifier: Classifier) -> Iterator[Door]:
    service = Service(classifier, Limits(seconds=0.05, requests=1))
    yield Door(service)
    service.close()
