"""Counters and histograms of the service, in the text format of Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
"""Upper bounds of the buckets of the histogram of batch sizes."""


class ServiceMetrics:
    """Metrics of one service, in a registry of their own.

    Args:
        waiting: returns the number of requests that wait to be computed.
        kept: returns the number of rows of each table of the store.
    """

    def __init__(self, waiting: Callable[[], int], kept: Callable[[], dict[str, int]]):
        self._registry = registry = CollectorRegistry()
        self._requests = Counter("metarec_requests", "Requests", ["route", "status"], registry=registry)
        self._seconds = Histogram("metarec_request_seconds", "Seconds of a request", ["route"], registry=registry)
        self._jobs = Histogram(
            "metarec_jobs_per_call", "Requests computed together", buckets=BATCH_SIZES, registry=registry
        )
        self._calls = Histogram("metarec_call_seconds", "Seconds of such a computation", registry=registry)
        self._places = Counter("metarec_impressions", "Items shown", ["arm"], registry=registry)
        self._events = Counter("metarec_events", "Clicks, purchases and ratings", ["kind", "arm"], registry=registry)
        Gauge("metarec_waiting", "Requests that wait to be computed", registry=registry).set_function(waiting)
        for name in kept():
            gauge = Gauge(f"metarec_kept_{name}", f"Rows of {name} in the store", registry=registry)
            gauge.set_function(lambda name=name: kept()[name])

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count a request.

        Args:
            route: path of the route, with the names of its parameters.
            status: status code of the response.
            seconds: time from the first byte of the request to the end of the response.
        """
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def batch(self, jobs: int, seconds: float) -> None:
        """Count a computation.

        Args:
            jobs: number of requests that were computed together.
            seconds: time that it took.
        """
        self._jobs.observe(jobs)
        self._calls.observe(seconds)

    def shown(self, arm: str) -> None:
        """Count an item that was shown."""
        self._places.labels(arm).inc()

    def event(self, kind: str, arm: str) -> None:
        """Count an action of a user.

        Args:
            kind: "click", "purchase", "rating" or "forget".
            arm: name of the model that chose the item; "none" for an item of no list.
        """
        self._events.labels(kind, arm).inc()

    def text(self) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        return generate_latest(self._registry)
