"""Who a worker is: its id and its row."""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Sequence

from store.database import Database, database_now
from store.identifiers import new_id
from store.tables import Worker
from worker.executors import sandbox_name

WORKER_ID = new_id("wrk")  # before the pool forks, so that parent and children share it


def register(database: Database, *, queues: Sequence[str]) -> None:
    """Write this worker's row, so that claims can refer to it."""
    with database.writing() as session:
        now = database_now(session)
        session.add(
            Worker(
                id=WORKER_ID,
                hostname=socket.gethostname(),
                pid=os.getpid(),
                queues=list(queues),
                facts={"python": platform.python_version(), "sandbox": sandbox_name()},
                started_at=now,
                last_seen_at=now,
            )
        )
