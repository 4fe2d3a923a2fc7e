"""P15: status polls a second, ours beside the bare route that reads the same row, in turns."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from benchmarks.load.polls import Polled, poll_for, summary
from benchmarks.load.service import GRACE_S, Service
from stack.children import Child

CONNECTIONS = 4
READY_WITHIN_S = 30.0


@dataclass
class Subject:
    """A server to be polled, and what was found."""

    url: str
    headers: Mapping[str, str]
    process: psutil.Process
    rounds: list[list[float]] = field(default_factory=list)
    cpu_s: float = 0.0

    def poll(self, *, seconds: float, kept: bool) -> None:
        """Poll for a while."""
        before = self._cpu_s()
        times = poll_for(self.url, self.headers, seconds=seconds, connections=CONNECTIONS)
        if kept:
            self.rounds.append(times)
            self.cpu_s += self._cpu_s() - before

    def _cpu_s(self) -> float:
        used = self.process.cpu_times()
        return float(used.user + used.system)


def p15(running: Service, job_id: str, *, rounds: int, seconds: float) -> dict[str, Polled]:
    """Poll a job at rest through both servers, one after the other, `rounds` times."""
    api = running.children["api"].process
    assert api is not None
    log = running.settings.data_dir / "bare.log"
    with bare_route(running.settings.resolved_database_url, log) as (bare, bare_pid):
        subjects = {
            "ours": Subject(
                f"{running.url}/v1/jobs/{job_id}", running.headers, psutil.Process(api.pid)
            ),
            "bare": Subject(f"{bare}/jobs/{job_id}", {}, psutil.Process(bare_pid)),
        }
        for number in range(rounds + 1):
            for subject in subjects.values():
                subject.poll(seconds=seconds, kept=number > 0)  # the first round warms up
    return {
        name: summary(subject.rounds, seconds=seconds, cpu_s=subject.cpu_s)
        for name, subject in subjects.items()
    }


@contextmanager
def bare_route(database_url: str, log: Path) -> Iterator[tuple[str, int]]:
    """Serve the bare route as the stack serves the API; yields its address and process id."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        descriptor = listener.fileno()
        command = [sys.executable, "-m", "benchmarks.load.bare", str(descriptor)]
        settings = {"CSTAR_DATABASE_URL": database_url}
        server = Child("bare", command, log, settings, inherited=[descriptor])
        server.start()
        assert server.process is not None
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            httpx.get(f"{url}/openapi.json", timeout=READY_WITHIN_S)
            yield url, server.process.pid
        finally:
            server.stop(grace_s=GRACE_S)
