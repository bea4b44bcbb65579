"""Count what the service does, for Prometheus; no image, name or class is in it."""

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_IMAGES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The figures of one service."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "fedprompt_serve_requests",
            "Requests to /predict answered, by status.",
            ["status"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "fedprompt_serve_request_seconds",
            "Time from a request to its answer.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "fedprompt_serve_requests_in_flight",
            "Requests waiting or computed now.",
            registry=self.registry,
        )
        self.arriving = Gauge(
            "fedprompt_serve_bodies_arriving",
            "Requests whose body is on its way now.",
            registry=self.registry,
        )
        self.batches = Histogram(
            "fedprompt_serve_batch_images",
            "Images computed at a time.",
            buckets=_IMAGES,
            registry=self.registry,
        )
        self.computing = Histogram(
            "fedprompt_serve_compute_seconds",
            "Time of a batch in ONNX Runtime.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.ready = Gauge(
            "fedprompt_serve_ready", "1 if images can be answered.", registry=self.registry
        )

    def page(self) -> bytes:
        """Return the figures as Prometheus reads them."""
        return generate_latest(self.registry)
