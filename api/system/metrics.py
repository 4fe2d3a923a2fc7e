"""What `/metrics` tells, in Prometheus' text format (exposition format 0.0.4).

All but the refused keys is read from the database, so every process of the API tells the same, and
it outlives all of them. Refused keys are counted by each process for itself: what an attacker can
cause a million times is not written down.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from importlib.metadata import version

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from store.database import Database
from store.measures import Measures, measure
from store.states import FINAL, JobState

MAX_AGE_S = 2.0  # asked more often than this, the same answer is given
QUANTILES = (0.5, 0.95)
Values = dict[tuple[str, ...], float]  # by the values of the labels


class AuthFailures:
    """Counts the requests of this process that were refused for their key, by reason."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def count(self, reason: str) -> None:
        """Count one."""
        with self._lock:
            self._counts[reason] += 1

    def counted(self) -> dict[str, int]:
        """Return the counts so far."""
        with self._lock:
            return dict(self._counts)


class Scrape:
    """Gives the text of the moment; one reader at a time asks the database."""

    def __init__(self, database: Database, failures: AuthFailures) -> None:
        self._database = database
        self._failures = failures
        self._lock = threading.Lock()
        self._text = b""
        self._read_at = -MAX_AGE_S

    def text(self) -> bytes:
        """Return the metrics, at most `MAX_AGE_S` old."""
        with self._lock:
            if time.monotonic() - self._read_at >= MAX_AGE_S:
                with self._database.reading() as session:
                    measures = measure(session)
                self._text, self._read_at = (
                    render(measures, self._failures.counted()),
                    time.monotonic(),
                )
            return self._text


def render(measures: Measures, failures: Mapping[str, int]) -> bytes:
    """Return measures, and how many keys were refused by reason, as text."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Measured(measures, failures))
    return generate_latest(registry)


class _Measured(Collector):
    def __init__(self, measures: Measures, failures: Mapping[str, int]) -> None:
        self._measures = measures
        self._failures = failures

    def collect(self) -> Iterator[Metric]:
        """Yield the families in a fixed order."""
        build: Values = {(version("cstar-service"),): 1.0}
        yield _labelled(GaugeMetricFamily, "cstar_build_info", "Always 1.", build, "version")
        yield from _queues(self._measures)
        yield from _counters(self._measures)
        yield from _watchers(self._measures)
        yield from _recent(self._measures)
        failures: Values = {(reason,): float(n) for reason, n in self._failures.items()}
        text = "Requests to this process that were refused for their key."
        yield _labelled(CounterMetricFamily, "cstar_auth_failures", text, failures, "reason")


def _queues(measures: Measures) -> Iterator[Metric]:
    live: Values = {}
    depth: Values = defaultdict(float)
    for count in measures.jobs:
        if count.state not in FINAL:
            live[count.queue, count.kind, count.state] = count.jobs
        depth[(count.queue,)] += count.jobs if count.state == JobState.QUEUED else 0
    yield _labelled(
        GaugeMetricFamily, "cstar_jobs", "Jobs that have not ended.", live, "queue", "kind", "state"
    )
    yield _labelled(GaugeMetricFamily, "cstar_queue_depth", "Jobs waiting.", depth, "queue")
    waits: Values = {(queue,): measures.oldest_wait_s.get(queue, 0.0) for (queue,) in depth}
    help_text = "Since when the oldest job of a queue waits."
    yield _labelled(GaugeMetricFamily, "cstar_queue_oldest_wait_seconds", help_text, waits, "queue")


def _counters(measures: Measures) -> Iterator[Metric]:
    ended: Values = defaultdict(float)
    for count in measures.jobs:
        if count.state in FINAL:
            ended[count.kind, count.state] += count.jobs
    family = CounterMetricFamily
    yield _labelled(family, "cstar_jobs_ended", "Jobs by how they ended.", ended, "kind", "outcome")
    errors: Values = {(code,): float(count) for code, count in measures.errors.items()}
    yield _labelled(family, "cstar_job_errors", "Failed jobs by error code.", errors, "code")
    over: Values = {(how,): float(n) for how, n in measures.attempts.items() if how != "running"}
    yield _labelled(family, "cstar_attempts", "Attempts by how they ended.", over, "outcome")


def _watchers(measures: Measures) -> Iterator[Metric]:
    workers: Values = {(queue,): float(count) for queue, count in measures.workers.items()}
    help_text = "Workers heard of within 90 s, by the queue they serve."
    yield _labelled(GaugeMetricFamily, "cstar_workers", help_text, workers, "queue")
    told: Values = {(how,): float(n) for how, n in measures.webhook_deliveries.items()}
    help_text = "Webhook deliveries of the last 30 days."
    yield _labelled(GaugeMetricFamily, "cstar_webhook_deliveries", help_text, told, "status")
    plain = {
        "cstar_running_attempts": ("Attempts under way.", measures.attempts.get("running", 0)),
        "cstar_expired_leases": ("Leases that ran out and were not taken back yet.",
                                 measures.expired_leases),
        "cstar_outbox_messages": ("Wake-up calls not published yet.", measures.outbox_messages),
        "cstar_outbox_lag_seconds": ("Since when the oldest of them is due.",
                                      measures.outbox_lag_s),
        "cstar_webhook_lag_seconds": ("Since when the oldest webhook delivery is due.",
                                      measures.webhook_lag_s),
        "cstar_blobs": ("Blobs that have a row.", measures.blobs),
        "cstar_blob_bytes": ("Bytes of these blobs.", measures.blob_bytes),
        "cstar_damaged_blobs": ("Those that a scrub found rotten or gone.",
                                measures.damaged_blobs),
    }  # fmt: skip
    for name, (text, value) in plain.items():
        yield GaugeMetricFamily(name, text, value=float(value))


def _recent(measures: Measures) -> Iterator[Metric]:
    """Quantiles over the newest jobs that ended: gauges, because a window moves both ways."""
    waits: dict[tuple[str, ...], list[float]] = defaultdict(list)
    runs: dict[tuple[str, ...], list[float]] = defaultdict(list)
    phases: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for job in measures.recent:
        waits[(job.kind,)].append(job.waited_s)
        runs[(job.kind,)].append(job.ran_s)
        for phase, seconds in job.phases:
            phases[job.kind, phase].append(seconds)
    text = "of the newest 100 jobs that ended."
    yield _quantiles("cstar_recent_wait_seconds", f"Time before the start {text}", waits, "kind")
    yield _quantiles("cstar_recent_run_seconds", f"Time at work {text}", runs, "kind")
    yield _quantiles(
        "cstar_recent_phase_seconds", f"Time in a phase {text}", phases, "kind", "phase"
    )


def _quantiles(
    name: str, text: str, samples: Mapping[tuple[str, ...], list[float]], *labels: str
) -> Metric:
    values = {
        (*key, str(q)): _quantile(sorted(found), q)
        for key, found in samples.items()
        for q in QUANTILES
    }
    return _labelled(GaugeMetricFamily, name, text, values, *labels, "quantile")


def _quantile(ordered: list[float], q: float) -> float:
    """Return the nearest-rank quantile."""
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def _labelled(
    family: type[GaugeMetricFamily] | type[CounterMetricFamily],
    name: str,
    text: str,
    values: Mapping[tuple[str, ...], float],
    *labels: str,
) -> Metric:
    metric = family(name, text, labels=labels)
    for key in sorted(values):
        metric.add_metric(key, values[key])
    return metric
