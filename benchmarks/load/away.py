"""What a request notices of a broker that is down: nothing; and its job runs afterwards."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median

import httpx

from benchmarks.load.service import Service

PATIENCE_S = 180.0  # a call that died with the broker is made again after `redispatch_s`


@dataclass(frozen=True)
class Away:
    """Medians of `POST /v1/jobs` in milliseconds, and whether all jobs ran in the end."""

    up_ms: float
    down_ms: float
    all_ran: bool

    @property
    def ratio(self) -> float:
        """Time with the broker down over time with it up."""
        return self.down_ms / self.up_ms


def without_broker(running: Service, *, jobs: int) -> Away:
    """Submit `jobs` with the broker up, as many with it killed, start it again and wait."""
    broker = running.children["broker"]
    with httpx.Client(base_url=running.url, headers=running.headers, timeout=60.0) as client:
        up = [_post(client, running) for _ in range(jobs)]
        assert broker.process is not None
        broker.process.kill()
        broker.process.wait()
        down = [_post(client, running) for _ in range(jobs)]
        broker.start()
        ids = [job_id for job_id, _ in up + down]
        all_ran = all(_succeeds(client, job_id) for job_id in ids)
    return Away(_median_ms(up), _median_ms(down), all_ran)


def _median_ms(posted: list[tuple[str, float]]) -> float:
    return 1000 * median(took for _, took in posted)


def _post(client: httpx.Client, running: Service) -> tuple[str, float]:
    began = time.perf_counter()
    answer = client.post("/v1/jobs", json=running.job)
    took = time.perf_counter() - began
    answer.raise_for_status()
    return answer.json()["id"], took


def _succeeds(client: httpx.Client, job_id: str) -> bool:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        job = client.get(f"/v1/jobs/{job_id}", headers={"Prefer": "wait=20"}).json()
        if job["status"] in ("succeeded", "failed"):
            return bool(job["status"] == "succeeded")
    return False
