"""What a service counts of itself, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable


class Meters:
    """Counters and histograms of one service, in a registry of their own.

    Args:
        waiting: how many requests wait to be computed.
        kept: rows in the store, by the name of the table.
    """

    def __init__(self, waiting: Callable[[], int], kept: Callable[[], dict[str, int]]):
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self._registry = registry = CollectorRegistry()
        self._requests = Counter("metarec_requests", "Requests", ["route", "status"], registry=registry)
        self._seconds = Histogram("metarec_request_seconds", "Seconds of a request", ["route"], registry=registry)
        sizes = (1, 2, 4, 8, 16, 32, 64, 128)
        self._jobs = Histogram("metarec_jobs_per_call", "Requests computed together", buckets=sizes, registry=registry)
        self._calls = Histogram("metarec_call_seconds", "Seconds of such a computation", registry=registry)
        self._places = Counter("metarec_impressions", "Items shown", ["arm"], registry=registry)
        self._events = Counter("metarec_events", "Clicks, purchases and ratings", ["kind", "arm"], registry=registry)
        Gauge("metarec_waiting", "Requests that wait to be computed", registry=registry).set_function(waiting)
        for name in kept():
            gauge = Gauge(f"metarec_kept_{name}", f"Rows of {name} in the store", registry=registry)
            gauge.set_function(lambda name=name: kept()[name])

    def request(self, route: str, status: int, seconds: float) -> None:
        """Counts a request."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def call(self, jobs: int, seconds: float) -> None:
        """Counts a computation."""
        self._jobs.observe(jobs)
        self._calls.observe(seconds)

    def shown(self, arm: str) -> None:
        """Counts an item that was shown."""
        self._places.labels(arm).inc()

    def event(self, kind: str, arm: str) -> None:
        """Counts something that a user did."""
        self._events.labels(kind, arm).inc()

    def text(self) -> bytes:
        """Everything, in Prometheus' format."""
        from prometheus_client import generate_latest

        return generate_latest(self._registry)
