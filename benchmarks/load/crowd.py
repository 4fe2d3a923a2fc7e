"""Clients at work while jobs run: submitters, readers of event streams, and status pollers."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from benchmarks.load.service import Service
from benchmarks.load.streams import told

FINAL = {"succeeded", "failed", "cancelled"}
POLL_S = 0.1
PATIENCE_S = 1200.0


@dataclass
class Crowd:
    """What the clients saw; times in seconds."""

    job_ids: list[str] = field(default_factory=list)
    states: dict[str, str] = field(default_factory=dict)
    poll_s: list[float] = field(default_factory=list)
    post_s: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    events: int = 0
    gaps: int = 0
    took_s: float = 0.0


def serve_crowd(running: Service, *, jobs: int, streams: int, pollers: int) -> Crowd:
    """Submit `jobs`, watch them by `streams` and `pollers`; returns when all have ended."""
    crowd, done = Crowd(), threading.Event()
    began = time.monotonic()
    _submit(running, crowd, jobs)
    watchers: list[Callable[[], None]] = [
        *(lambda n=n: _stream(running, crowd, n, streams) for n in range(streams)),
        *(lambda n=n: _poll(running, crowd, n, done) for n in range(pollers)),
    ]
    threads = [threading.Thread(target=watch) for watch in watchers]
    for thread in threads:
        thread.start()
    _await_all(running, crowd, began + PATIENCE_S)
    crowd.took_s = time.monotonic() - began
    done.set()  # for the pollers; a reader ends with its last job
    for thread in threads:
        thread.join()
    return crowd


def _client(running: Service) -> httpx.Client:
    return httpx.Client(base_url=running.url, headers=running.headers, timeout=120.0)


def _asked(crowd: Crowd, ask: Callable[[], httpx.Response], times: list[float]) -> Any:
    began = time.perf_counter()
    answer = ask()
    times.append(time.perf_counter() - began)
    crowd.statuses[answer.status_code] += 1
    return answer.json()


def _submit(running: Service, crowd: Crowd, jobs: int) -> None:
    with _client(running) as client:
        for _ in range(jobs):
            job = _asked(crowd, lambda: client.post("/v1/jobs", json=running.job), crowd.post_s)
            crowd.job_ids.append(job["id"])


def _stream(running: Service, crowd: Crowd, number: int, streams: int) -> None:
    """Read the event stream of one job after the other, each from its first event to its last.

    Together the readers read all events of all jobs.
    """
    with _client(running) as client:
        for job_id in crowd.job_ids[number::streams]:
            _follow(client, crowd, job_id)


def _follow(client: httpx.Client, crowd: Crowd, job_id: str) -> None:
    seen, ended = 0, False
    deadline = time.monotonic() + PATIENCE_S
    while not ended and time.monotonic() < deadline:
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(seen)}
        with client.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers) as answer:
            crowd.statuses[answer.status_code] += 1
            for message in told(answer.iter_lines()):
                if message.seq is not None:
                    crowd.events += 1
                    crowd.gaps += message.seq != seen + 1
                    seen = message.seq
                    ended |= message.type.removeprefix("job.") in FINAL


def _poll(running: Service, crowd: Crowd, number: int, done: threading.Event) -> None:
    with _client(running) as client:
        at = number
        while not done.wait(POLL_S):
            job_id = crowd.job_ids[at % len(crowd.job_ids)]
            at += 7
            path = f"/v1/jobs/{job_id}"
            _asked(crowd, lambda path=path: client.get(path), crowd.poll_s)  # type: ignore[misc]


def _await_all(running: Service, crowd: Crowd, deadline: float) -> None:
    with _client(running) as client:
        waiting = list(crowd.job_ids)
        while waiting:
            if time.monotonic() > deadline:
                return
            headers = {"Prefer": "wait=20"}
            job = client.get(f"/v1/jobs/{waiting[-1]}", headers=headers).json()
            if job["status"] in FINAL:
                crowd.states[waiting.pop()] = job["status"]
