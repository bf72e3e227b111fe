"""What an operator watches, in the Prometheus text format, from a registry of our own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from rounds.loop.live import Live
from rounds.serve.pool import Reply

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Metrics:
    """Counts requests and predictions; what is live (queue, swaps, champion) is read when it is asked for."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        requests = Counter(
            "rounds_http_requests", "Requests by route and status.", ["route", "status"], registry=self.registry
        )
        seconds = Histogram(
            "rounds_http_request_seconds", "Time to the answer.", ["route"], registry=self.registry, buckets=SECONDS
        )
        answered = Counter(
            "rounds_predictions", "Answered films by version and class.", ["version", "label"], registry=self.registry
        )
        referred = Counter(
            "rounds_referred", "Answered films that a person should look at.", ["version"], registry=self.registry
        )
        refused = Counter(
            "rounds_refusals", "Requests that were refused or failed, by reason.", ["reason"], registry=self.registry
        )
        self._told = Counter(
            "rounds_troubles",
            "Versions that could not be seated, answers that could not be kept.",
            ["kind"],
            registry=self.registry,
        )
        stages = Histogram(
            "rounds_batch_seconds",
            "Time of a batch in a worker, by stage.",
            ["stage"],
            registry=self.registry,
            buckets=SECONDS,
        )
        self._films = Histogram(
            "rounds_batch_films", "Films answered together.", registry=self.registry, buckets=(1, 2, 4, 8, 16, 32, 64)
        )
        # Finding a labelled child takes a lock and builds a tuple of strings; the set of children is small and fixed.
        self._requests = lru_cache(1024)(lambda route, status: requests.labels(route, str(status)))
        self._seconds = lru_cache(64)(seconds.labels)
        self._stages = lru_cache(8)(stages.labels)
        self._answered = lru_cache(1024)(answered.labels)
        self._referred = lru_cache(64)(referred.labels)
        self._refused = lru_cache(64)(refused.labels)

    def watch(self, live: Live) -> None:
        """Show what is live from now on."""
        self.registry.register(_Now(live))

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        self._requests(route, status).inc()
        self._seconds(route).observe(seconds)

    def refused(self, reason: str) -> None:
        """Count one request that got a problem for an answer."""
        self._refused(reason).inc()

    def predicted(self, reply: Reply) -> None:
        """Count one answered film."""
        self._answered(reply.version, reply.label).inc()
        if reply.refer:
            self._referred(reply.version).inc()

    def took(self, films: int, seconds: Mapping[str, float]) -> None:
        """Count a batch that a worker answered, and its seconds by stage."""
        self._films.observe(films)
        for stage, spent in seconds.items():
            self._stages(stage).observe(spent)

    def told(self, what: str) -> None:
        """Count what the live loop tells, a new champion aside."""
        if what != "seated":
            self._told.labels(what).inc()

    def text(self) -> bytes:
        """Everything, in the text format."""
        return generate_latest(self.registry)


class _Now(Collector):
    """What is live at this moment."""

    def __init__(self, live: Live) -> None:
        self._live = live

    def describe(self) -> Iterator[Metric]:
        """Name nothing beforehand: without this the registry would collect once at registration."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Read queue, swaps and champion."""
        seated = self._live.seated
        yield GaugeMetricFamily("rounds_queue_depth", "Requests that wait.", value=self._live.depth)
        yield GaugeMetricFamily("rounds_ready", "1 where a champion is in service.", value=1 if self._live.ready else 0)
        yield GaugeMetricFamily("rounds_workers", "Worker processes that answer.", value=self._live.workers)
        yield CounterMetricFamily("rounds_worker_deaths", "Workers that died.", value=self._live.deaths)
        yield GaugeMetricFamily(
            "rounds_capture_backlog_bytes", "Bytes of answers that wait for the stores.", value=self._live.backlog
        )
        yield CounterMetricFamily("rounds_swaps", "Versions put in service.", value=self._live.swaps)
        yield from self._watched()
        champion = InfoMetricFamily("rounds_champion", "The version in service and its bundle.")
        if seated:
            champion.add_metric([], {"version": seated.version, "bundle": seated.bundle.digest})
        yield champion

    def _watched(self) -> Iterator[Metric]:
        """What the watch said of the champion when it last looked; nothing before the first look."""
        evidence = GaugeMetricFamily(
            "rounds_watch_evidence", "Evidence as a share of what raises the alarm.", labels=["kind"]
        )
        films = GaugeMetricFamily("rounds_watch_films", "Films that the watch has seen of the champion.")
        age = GaugeMetricFamily("rounds_watch_age_seconds", "Time since the watch looked.")
        if (seen := self._live.sighting) is not None:
            for kind, share in seen.evidence.items():
                evidence.add_metric([kind], share)
            films.add_metric([], seen.n)
            age.add_metric([], (self._live.ports.clock() - seen.at).total_seconds())
        yield from (evidence, films, age)
