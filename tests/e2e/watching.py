"""Waiting for what a job does, and finding the processes that do it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psutil

from cstar_client import Client
from cstar_client.documents import Event
from stack.embedded import Stack

PATIENCE_S = 240.0  # only what hangs takes so long
LOOK_S = 0.05


def until(look: Callable[[], Any], what: str) -> Any:
    """Return the first true answer of `look`; fails the test when patience ends."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if answer := look():
            return answer
        time.sleep(LOOK_S)
    raise AssertionError(f"waited {PATIENCE_S:.0f} s in vain for {what}")


def events(client: Client, job_id: str) -> list[Event]:
    """Return all events of a job."""
    return list(client.jobs.events(job_id, live=False))


def of_type(rows: list[Event], kind: str) -> list[dict[str, Any]]:
    """Return the data of the events of one type."""
    return [row["data"] for row in rows if row["type"] == kind]


def wait_for_checkpoint(client: Client, job_id: str, phase: str) -> None:
    """Return when a checkpoint has been kept within `phase`."""

    def saved() -> bool:
        kept = of_type(events(client, job_id), "checkpoint.saved")
        return any(event["phase"] == phase for event in kept)

    until(saved, f"a checkpoint in {phase}")


def runners(stack: Stack) -> list[psutil.Process]:
    """Return the process groups' leaders that the job worker has started for runners."""
    worker = stack.children["jobs"].process
    assert worker is not None
    found = []
    for process in psutil.Process(worker.pid).children(recursive=True):
        try:
            if "worker.runner" in process.cmdline():
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def worker_processes(stack: Stack) -> list[psutil.Process]:
    """Return the job worker and everything below it."""
    worker = stack.children["jobs"].process
    assert worker is not None
    parent = psutil.Process(worker.pid)
    return [parent, *parent.children(recursive=True)]


def kill(processes: list[psutil.Process]) -> None:
    """SIGKILL processes that this test's stack has started."""
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
