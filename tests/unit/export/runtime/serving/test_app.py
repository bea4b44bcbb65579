import asyncio
import json
import logging
from threading import Event
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from fedprompt.processes.logs import JsonFormatter

from .conftest import Door, code


@pytest.mark.parametrize("query", ["top_k=0", "top_k=-3", "top_k=many", "top_k=1.5"])
def test_a_wrong_top_k_is_422(door: Door, png: bytes, query: str) -> None:
    response = door.post(png, path=f"/predict?{query}")
    assert (response.status_code, code(response)) == (422, "query")
    assert "top_k" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/predict?topk=2", "found 'topk'; expected top_k"),
        ("/predict?top_k=2&Top_k=2", "found 'Top_k'; expected top_k"),
        ("/predict?top_k=2&top_k=3", "top_k is given 2 times"),
        ("/predict?verbose", "found 'verbose'; expected top_k"),
        ("/health?full=1", "found 'full'; expected no query"),
        ("/metrics?name=x", "found 'name'; expected no query"),
    ],
)
def test_a_query_that_is_not_known_is_422(door: Door, png: bytes, path: str, told: str) -> None:
    method = "POST" if path.startswith("/predict") else "GET"
    response = door.ask(method, path, content=png, headers={"content-type": "image/png"})
    assert (response.status_code, code(response)) == (422, "query")
    assert told in response.json()["error"]["message"]


def test_more_classes_than_there_are_is_all_of_them(door: Door, png: bytes) -> None:
    response = door.post(png, path="/predict?top_k=99")
    assert len(response.json()["results"][0]["predictions"]) == 5


def test_unknown_paths_and_methods_have_the_same_shape(door: Door) -> None:
    missing, wrong = door.ask("GET", "/nothing"), door.ask("GET", "/predict")
    assert (missing.status_code, code(missing)) == (404, "not_found")
    assert (wrong.status_code, code(wrong), wrong.headers["allow"]) == (405, "method", "POST")
    assert door.ask("GET", "/docs").status_code == 404  # its scripts come from elsewhere


def test_health_and_what_is_served(door: Door) -> None:
    response = door.ask("GET", "/health")
    assert response.status_code == 200
    body = response.json()
    assert (body["live"], body["ready"], body["model"]["classes"]) == (True, True, 5)
    door.service.close()
    response = door.ask("GET", "/health")
    assert (response.status_code, response.json()["ready"]) == (503, False)
    assert door.ask("GET", "/health/live").status_code == 200


def test_an_unforeseen_error_tells_nothing_of_itself(
    door: Door, png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("/home/secret")

    monkeypatch.setattr(door.service, "_pixels", broken)
    response = door.post(png)
    assert (response.status_code, code(response)) == (500, "internal")
    assert "secret" not in response.text
    assert door.service._in_flight == 0


class Held:
    """Let the graph wait until it is released."""

    def __init__(self, door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered, self.release = Event(), Event()
        original = door.service.classifier.logits

        def logits(images: Any) -> Any:
            self.entered.set()
            assert self.release.wait(30)
            return original(images)

        monkeypatch.setattr(door.service.classifier, "logits", logits)


def test_one_request_too_many_is_503_and_the_others_are_answered(
    door: Door, png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(door, monkeypatch)
    headers = {"content-type": "image/png"}

    async def scene() -> tuple[list[int], httpx.Response]:
        async with door.client() as client:
            first = [
                asyncio.create_task(client.post("/predict", content=png, headers=headers))
                for _ in range(2)
            ]
            await asyncio.to_thread(held.entered.wait, 30)
            while door.service._in_flight < len(first):  # both places are taken
                await asyncio.sleep(0.01)
            late = await client.post("/predict", content=png, headers=headers)
            assert (await client.get("/health")).status_code == 200  # busy is not broken
            held.release.set()
            return [response.status_code for response in await asyncio.gather(*first)], late

    answered, late = asyncio.run(scene())
    assert answered == [200, 200]
    assert (late.status_code, code(late), late.headers["retry-after"]) == (503, "busy", "1")
    assert door.post(png).status_code == 200  # the places are free again


def test_a_slow_answer_is_504_and_keeps_its_place_until_it_is_through(
    single: Door, png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(single, monkeypatch)
    headers = {"content-type": "image/png"}

    async def out_of_time(tasks: set[Any], timeout: float) -> tuple[set[Any], set[Any]]:
        await asyncio.to_thread(held.entered.wait, 30)
        return set(), tasks

    async def scene() -> list[httpx.Response]:
        async with single.client() as client:
            with monkeypatch.context() as patch:
                patch.setattr(asyncio, "wait", out_of_time)
                slow = await client.post("/predict", content=png, headers=headers)
            turned_away = await client.post("/predict", content=png, headers=headers)
            held.release.set()
            while single.service._in_flight:
                await asyncio.sleep(0.01)
            return [slow, turned_away]

    slow, turned_away = asyncio.run(scene())
    assert (slow.status_code, code(slow)) == (504, "too_slow")
    assert (turned_away.status_code, code(turned_away)) == (503, "busy")


def figures(door: Door) -> dict[str, float]:
    text = door.ask("GET", "/metrics").text
    return {
        sample.name + json.dumps(sample.labels): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_count_what_was_answered(door: Door, png: bytes) -> None:
    door.post(png)
    door.post(png)
    door.post(b"no image")
    found = figures(door)
    assert found['fedprompt_serve_requests_total{"status": "200"}'] == 2
    assert found['fedprompt_serve_requests_total{"status": "422"}'] == 1
    assert found["fedprompt_serve_request_seconds_count{}"] == 3
    assert found["fedprompt_serve_batch_images_sum{}"] == 2
    assert found["fedprompt_serve_requests_in_flight{}"] == 0
    assert found["fedprompt_serve_ready{}"] == 1


def test_the_log_has_status_and_time_and_no_name(
    door: Door, png: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "export.serving"):
        door.ask("POST", "/predict", files={"f": ("patient-7.png", png)})
        door.ask("GET", "/health")
    [record] = caplog.records
    told = json.loads(JsonFormatter().format(record))
    assert (told["event"], told["status"], told["level"]) == ("request", 200, "info")
    assert told["seconds"] > 0
    assert "patient-7" not in json.dumps(told)
