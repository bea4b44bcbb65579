"""The metrics page, scraped over HTTP and read by Prometheus's own parser."""

import json
import os
import urllib.request

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from fedprompt.errors import FedpromptError, QuorumError
from server.run_folder import metrics, run_status
from tests import round_lines

LINE = {
    "round": 1, "asked": [0, 1, 2], "accepted": [0, 2], "loss": 1.25, "accuracy": 0.75,
    "worst_client_acc": 0.5, "information_density": 0.4, "truncation_error": 0.01,
    "bytes_up": 460, "bytes_down": 450, "evaluation_bytes_up": 40, "evaluation_bytes_down": 50,
    "seconds": 2.5, "strikes": {"1": 3}, "quarantined": [1],
    "verdicts": [{"site": 1, "node": 9, "accepted": False, "reasons": ["not-finite"]}],
}  # fmt: skip


@pytest.fixture
def scrape(tmp_path):
    """Return a function that scrapes the page of a run's folder, as {(name, labels): value}."""
    server, thread = metrics.serve(tmp_path, tmp_path / "nodes.json", port=0)
    url = f"http://127.0.0.1:{server.server_port}/metrics"

    def read():
        accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
        with urllib.request.urlopen(urllib.request.Request(url, headers=accept)) as page:
            text = page.read().decode()
        return {
            (sample.name, *(v for _, v in sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    yield read
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_run_that_has_not_begun_shows_no_figures(scrape):
    assert scrape() == {
        ("fedprompt_received_bytes_total",): 0, ("fedprompt_sent_bytes_total",): 0,
        ("fedprompt_run_done",): 0, ("fedprompt_run_failed",): 0,
    }  # fmt: skip


def test_every_figure_of_a_run(scrape, tmp_path):
    (tmp_path / "settings.json").write_text('{"server.rounds": 10}')
    (tmp_path / "checkpoints").mkdir()
    checkpoint = tmp_path / "checkpoints" / "round-00001.safetensors"
    checkpoint.touch()
    os.utime(checkpoint, (1000, 1000))
    node = {"number": 1, "name": "site-b", "online": True, "last_seen": "1970-01-01T00:01:00Z"}
    (tmp_path / "nodes.json").write_text(json.dumps({"sites": [node]}))
    round_lines.append(tmp_path, LINE)
    assert scrape() == {
        ("fedprompt_round",): 1,
        ("fedprompt_rounds_planned",): 10,
        ("fedprompt_accuracy_ratio",): 0.75,
        ("fedprompt_worst_site_accuracy_ratio",): 0.5,
        ("fedprompt_loss",): 1.25,
        ("fedprompt_information_density_ratio",): 0.4,
        ("fedprompt_truncation_error",): 0.01,
        ("fedprompt_round_duration_seconds",): 2.5,
        ("fedprompt_received_bytes_total",): 500,
        ("fedprompt_sent_bytes_total",): 500,
        ("fedprompt_replies_refused_total", "not-finite"): 1,
        ("fedprompt_sites_asked",): 3,
        ("fedprompt_sites_accepted",): 2,
        ("fedprompt_sites_quarantined",): 1,
        ("fedprompt_site_strikes", "1"): 3,
        ("fedprompt_last_commit_timestamp_seconds",): 1000,
        ("fedprompt_run_done",): 0,
        ("fedprompt_run_failed",): 0,
        ("fedprompt_site_up", "site-b", "1"): 1,
        ("fedprompt_site_last_seen_timestamp_seconds", "site-b", "1"): 60,
    }


def test_a_round_without_evaluation_keeps_the_last_accuracy(scrape, tmp_path):
    round_lines.append(tmp_path, LINE)
    bare = {k: v for k, v in LINE.items() if k not in ("accuracy", "worst_client_acc")}
    round_lines.append(tmp_path, bare | {"round": 2, "loss": None})
    found = scrape()
    assert (found["fedprompt_round",], found["fedprompt_accuracy_ratio",]) == (2, 0.75)
    assert ("fedprompt_loss",) not in found
    assert found["fedprompt_received_bytes_total",] == 1000


def test_how_a_run_ended(scrape, tmp_path):
    run_status.write_success(tmp_path, "abc")
    assert (scrape()["fedprompt_run_done",], scrape()["fedprompt_run_failed",]) == (1, 0)
    run_status.write_failure(tmp_path, QuorumError("2 of 5 sites"))
    assert (scrape()["fedprompt_run_done",], scrape()["fedprompt_run_failed",]) == (0, 1)


def test_damaged_files_cost_their_own_figures_only(scrape, tmp_path):
    round_lines.append(tmp_path, LINE)
    for name in ("settings.json", "nodes.json", "outcome.json"):
        (tmp_path / name).write_text("[")
    found = scrape()
    assert found["fedprompt_round",] == 1
    assert ("fedprompt_rounds_planned",) not in found


def test_a_port_in_use_is_one_clear_error(tmp_path):
    server, thread = metrics.serve(tmp_path, port=0)
    with pytest.raises(FedpromptError, match="give another port"):
        metrics.serve(tmp_path, port=server.server_port)
    server.shutdown()
    server.server_close()
    thread.join()
