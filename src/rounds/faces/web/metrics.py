"""What an operator watches, in the Prometheus text format, from a registry of our own."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from rounds.loop.live import Live
from rounds.serve.pool import Reply

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
FILMS = (1, 2, 4, 8, 16, 32, 64)

Key = tuple[object, ...]


class Metrics(Collector):
    """Counts requests and predictions; what is live (queue, swaps, champion) is read when it is asked for.

    Counted in plain numbers by the event loop, which alone counts, and made into metrics when they are asked for: the
    library's own counters are safe for threads, and cost a small film a tenth of its answer.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter[Key]()
        self._answered = Counter[Key]()
        self._referred = Counter[Key]()
        self._refused = Counter[Key]()
        self._told = Counter[Key]()
        self._seconds = _Spread(SECONDS)
        self._stages = _Spread(SECONDS)
        self._films = _Spread(FILMS)
        self.registry.register(self)

    def watch(self, live: Live) -> None:
        """Show what is live from now on."""
        self.registry.register(_Now(live))

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        self._requests[route, status] += 1
        self._seconds.add((route,), seconds)

    def refused(self, reason: str) -> None:
        """Count one request that got a problem for an answer."""
        self._refused[(reason,)] += 1

    def predicted(self, reply: Reply) -> None:
        """Count one answered film."""
        self._answered[reply.version, reply.label] += 1
        if reply.refer:
            self._referred[(reply.version,)] += 1

    def took(self, films: int, seconds: Mapping[str, float]) -> None:
        """Count a batch that a worker answered, and its seconds by stage."""
        self._films.add((), films)
        for stage, spent in seconds.items():
            self._stages.add((stage,), spent)

    def told(self, what: str) -> None:
        """Count what the live loop tells, a new champion aside."""
        if what != "seated":
            self._told[(what,)] += 1

    def text(self) -> bytes:
        """Everything, in the text format."""
        return generate_latest(self.registry)

    def describe(self) -> Iterator[Metric]:
        """Name nothing beforehand: without this the registry would collect once at registration."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Everything that was counted."""
        yield _counter("rounds_http_requests", "Requests by route and status.", self._requests, "route", "status")
        yield self._seconds.metric("rounds_http_request_seconds", "Time to the answer.", "route")
        yield _counter("rounds_predictions", "Answered films by version and class.", self._answered, "version", "label")
        yield _counter("rounds_referred", "Answered films that a person should look at.", self._referred, "version")
        yield _counter("rounds_refusals", "Requests that were refused or failed, by reason.", self._refused, "reason")
        troubles = "Versions that could not be seated, answers that could not be kept."
        yield _counter("rounds_troubles", troubles, self._told, "kind")
        yield self._stages.metric("rounds_batch_seconds", "Time of a batch in a worker, by stage.", "stage")
        yield self._films.metric("rounds_batch_films", "Films answered together.")


def _counter(name: str, about: str, counts: Mapping[Key, int], *labels: str) -> Metric:
    family = CounterMetricFamily(name, about, labels=labels)
    # A copy: the loop goes on counting, and it may be another thread that asks.
    for key, count in list(counts.items()):
        family.add_metric([str(part) for part in key], count)
    return family


class _Spread:
    """How many values lie at or below each bound, by key, and their sum."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts: dict[Key, list[int]] = defaultdict(lambda: [0] * (len(bounds) + 1))
        self._sums = defaultdict[Key, float](float)

    def add(self, key: Key, value: float) -> None:
        """Count one value."""
        self._counts[key][bisect_left(self._bounds, value)] += 1
        self._sums[key] += value

    def metric(self, name: str, about: str, *labels: str) -> Metric:
        """As a histogram."""
        family = HistogramMetricFamily(name, about, labels=labels)
        names = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        for key, counts in list(self._counts.items()):
            values = [str(part) for part in key]
            family.add_metric(values, list(zip(names, accumulate(counts), strict=True)), self._sums[key])
        return family


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
