"""Show a run to Prometheus: every figure is read from the run's folder when it is scraped.

Nothing is kept but how far the record was read, so the figures survive restarts of the server and
of this endpoint alike. Times are timestamps, as Prometheus has it: ``time() - fedprompt_..``.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from threading import Lock, Thread
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from fedprompt.errors import FedpromptError
from fedprompt.round_record import RoundRecord
from fedprompt.run_folder import RunFolder
from server.run_folder import checkpoint, online_nodes, run_status
from server.run_folder.online_nodes import Presence
from server.run_folder.record_totals import Tally

# name, meaning, value in the newest round that has it
_GAUGES: tuple[tuple[str, str, Callable[[RoundRecord], float | None]], ...] = (
    ("round", "Last committed round.", lambda r: r.round),
    (
        "accuracy_ratio",
        "Accuracy on the sites' held-out images, last evaluation.",
        lambda r: r.accuracy,
    ),
    ("worst_site_accuracy_ratio", "The worst site's accuracy.", lambda r: r.worst_client_acc),
    ("loss", "Mean training loss of the sites in the last round.", lambda r: r.loss),
    (
        "information_density_ratio",
        "Information density of the prompt.",
        lambda r: r.information_density,
    ),
    ("truncation_error", "What merging lost in the last round.", lambda r: r.truncation_error),
    ("round_duration_seconds", "Time the last round took.", lambda r: r.seconds),
    ("sites_asked", "Sites asked in the last round.", lambda r: len(r.asked) or None),
    (
        "sites_accepted",
        "Sites whose replies passed in the last round.",
        lambda r: len(r.accepted) if r.asked else None,
    ),
    ("sites_quarantined", "Sites that are not asked now.", lambda r: len(r.quarantined)),
)


def serve(
    folder: Path, nodes: Path | None = None, host: str = "127.0.0.1", port: int = 9095
) -> tuple[WSGIServer, Thread]:
    """Serve ``/metrics`` of a run's folder from a thread until the server is shut down.

    Parameters
    ----------
    folder
        ``server.output`` of the run; it may not exist yet.
    nodes
        A JSON file of who is connected, see `server.run_folder.online_nodes`.
    host, port
        Where to listen; the page carries no secrets, but stays on loopback unless told otherwise.
        Port 0 takes a free one.

    Raises
    ------
    FedpromptError
        The address cannot be listened on.
    """
    registry = CollectorRegistry()
    registry.register(RunCollector(folder, nodes))
    try:
        return start_http_server(port, host, registry)
    except OSError as error:
        raise FedpromptError(
            f"metrics cannot be served at {host}:{port}: {error.strerror}; give another port"
        ) from error


class RunCollector(Collector):
    """Read a run's folder at each scrape."""

    def __init__(self, folder: Path, nodes: Path | None = None) -> None:
        self._folder, self._nodes = RunFolder(folder), nodes
        self._tally, self._lock = Tally(self._folder.record), Lock()  # scrapes come in threads

    def collect(self) -> Iterable[Metric]:
        """Yield every family; one that has nothing to tell yet is left out."""
        with self._lock:
            self._tally.update()
            families = list(self._rounds())
        families += self._run()
        families += _presence(online_nodes.read(self._nodes) if self._nodes else [])
        return [family for family in families if family.samples]

    def _rounds(self) -> Iterable[Metric]:
        tally, last = self._tally, self._tally.last
        for name, text, value in _GAUGES:
            yield _gauge(name, text, value(last) if last else None)
        yield _counter("received_bytes", "Bytes of all messages from the sites.", tally.up)
        yield _counter("sent_bytes", "Bytes of all messages to the sites.", tally.down)
        refused = CounterMetricFamily(
            "fedprompt_replies_refused", "Replies dropped, by reason.", labels=["reason"]
        )
        for reason, count in sorted(tally.refused.items()):
            refused.add_metric([reason], count)
        yield refused
        strikes = GaugeMetricFamily("fedprompt_site_strikes", "A site's strikes.", labels=["site"])
        for site, number in (last.strikes if last else {}).items():
            strikes.add_metric([str(site)], number)
        yield strikes

    def _run(self) -> Iterable[Metric]:
        planned = self._folder.settings().get("server.rounds")
        yield _gauge("rounds_planned", "Rounds the run is to have.", planned)
        newest = _newest(self._folder.checkpoints)
        yield _gauge("last_commit_timestamp_seconds", "When a round was last committed.", newest)
        ended = run_status.read(self._folder.path)
        failed = None if ended is None else bool(ended.error)
        yield _gauge("run_done", "1 when the run has left its artefact.", failed is False)
        yield _gauge("run_failed", "1 when an error ended the run.", failed is True)


def _presence(sites: Iterable[Presence]) -> Iterable[Metric]:
    labels = ["site", "name"]
    up = GaugeMetricFamily("fedprompt_site_up", "1 if a site is connected.", labels=labels)
    seen = GaugeMetricFamily(
        "fedprompt_site_last_seen_timestamp_seconds", "When a site last spoke.", labels=labels
    )
    for site in sites:
        up.add_metric([str(site.number), site.name], site.online)
        if site.last_seen is not None:
            seen.add_metric([str(site.number), site.name], site.last_seen)
    return up, seen


def _gauge(name: str, text: str, value: object) -> Metric:
    """Return a family of one value, or of none where there is no number to tell."""
    family = GaugeMetricFamily(f"fedprompt_{name}", text)
    if isinstance(value, int | float):
        family.add_metric([], value)
    return family


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"fedprompt_{name}", text, value=value)


def _newest(checkpoints: Path) -> float | None:
    """Return when a round was last committed, in seconds since 1970."""
    times = []
    for path in checkpoint.files(checkpoints):
        with suppress(OSError):  # old ones are dropped meanwhile
            times.append(path.stat().st_mtime)
    return max(times, default=None)
