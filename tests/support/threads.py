"""Running things at the same time, without sleeping and without losing an exception."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from sqlalchemy import text

from store.database import Database

T = TypeVar("T")

PATIENCE_S = 120.0  # only what hangs takes so long
POLL_S = 0.005


def at_once(tasks: Sequence[Callable[[], T]]) -> list[T]:
    """Run every task in a thread of its own, all let go together; an exception comes out."""
    barrier = threading.Barrier(len(tasks))

    def run(task: Callable[[], T]) -> T:
        barrier.wait(PATIENCE_S)
        return task()

    with ThreadPoolExecutor(len(tasks)) as pool:
        futures = [pool.submit(run, task) for task in tasks]
        return [future.result(PATIENCE_S) for future in futures]


@contextmanager
def in_background(task: Callable[[], T]) -> Iterator[Future[T]]:
    """Run a task beside the block."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(task)


def await_lock_wait(database: Database, future: Future[T]) -> None:
    """Return once a transaction of this PostgreSQL database waits for a lock (or is done)."""
    waiting = text(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    pause = threading.Event()
    for _ in range(int(PATIENCE_S / POLL_S)):
        with database.reading() as session:
            if future.done() or session.execute(waiting).scalar_one():
                return
        pause.wait(POLL_S)
    raise TimeoutError("nothing waited for a lock")
