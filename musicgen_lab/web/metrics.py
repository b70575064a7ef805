"""`Metrics`: the web app's counters, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from starlette.types import Scope

from musicgen_lab.web.admission import Admission

LATENCY_S = (0.01, 0.1, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600)
METHODS = ("GET", "HEAD", "POST", "DELETE", "OPTIONS")


class Metrics:
    """Counters of one web app, in their own registry.

    Parameters
    ----------
    admission : Admission
        Counts the requests in flight and the audio made.
    """

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self._requests = Counter(
            "musicgen_requests",
            "Requests answered.",
            ["method", "path", "status"],
            registry=self._registry,
        )
        self._latency = Histogram(
            "musicgen_request_duration_seconds",
            "Seconds from a request's head to the end of its answer.",
            ["method", "path"],
            buckets=LATENCY_S,
            registry=self._registry,
        )

    def collect(self) -> Iterator[Metric]:
        """Yield the current values, for `CollectorRegistry`."""
        admission = self._admission
        yield GaugeMetricFamily(
            "musicgen_queue_depth", "Requests that wait for a slot.", admission.waiting
        )
        yield GaugeMetricFamily(
            "musicgen_clips_in_progress", "Clips that are being made.", admission.making
        )
        yield CounterMetricFamily(
            "musicgen_audio_seconds", "Seconds of audio made.", admission.audio_s
        )

    def count(self, scope: Scope, status: int, elapsed_s: float) -> None:
        """Count a request by its route, since arbitrary paths would each create a new label."""
        path = getattr(scope.get("route"), "path", "other")
        method = scope["method"] if scope["method"] in METHODS else "other"
        self._requests.labels(method, path, status).inc()
        self._latency.labels(method, path).observe(elapsed_s)

    def render(self) -> bytes:
        """Return everything in Prometheus's text format."""
        return generate_latest(self._registry)
