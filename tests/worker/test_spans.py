"""What a runner says of its times goes into the trace, but only within its attempt."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from store import tracing
from tests.support import rows
from tests.worker.shop import Shop
from worker.attempt import Attempt
from worker.protocol import Span
from worker.reporter import MAX_SPANS, Reporter

YEAR_NS = 365 * 86_400 * 10**9


@pytest.fixture
def trace(tmp_path: Path) -> Iterator[Path]:
    """The file that spans are written to in this test."""
    path = tmp_path / "traces.jsonl"
    tracing.configure_tracing("here", path.as_uri())
    yield path
    tracing.configure_tracing("here", None)
    tracing._setup.providers.clear()


@pytest.fixture
def reporter(shop: Shop, trace: Path, tmp_path: Path) -> Reporter:
    lease = rows.running_job(shop.database)
    attempt = Attempt(shop.database, shop.blobs, lease, shop.settings, claimed_at=time.monotonic())
    return Reporter(attempt, tmp_path)


def written(trace: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in trace.read_text().splitlines()]


def test_times_outside_the_attempt_are_brought_into_it(reporter: Reporter, trace: Path) -> None:
    now = time.time_ns()
    reporter.report(Span(name="admm", started_ns=0, ended_ns=now + YEAR_NS))
    reporter.report(Span(name="backwards", started_ns=now + YEAR_NS, ended_ns=0))
    for span in written(trace):
        started, ended = (datetime.fromisoformat(span[key]) for key in ("start_time", "end_time"))
        assert now - 10**10 <= started.timestamp() * 1e9
        assert started <= ended
        assert ended.timestamp() * 1e9 <= time.time_ns() + 10**6  # microseconds are rounded


def test_a_runner_cannot_fill_the_trace(reporter: Reporter, trace: Path) -> None:
    for _ in range(MAX_SPANS + 10):
        reporter.report(Span(name="admm", started_ns=0, ended_ns=1))
    assert len(written(trace)) == MAX_SPANS
