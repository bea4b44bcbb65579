import json
import logging

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fedprompt.processes.logs import JsonFormatter

from .conftest import Door


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
