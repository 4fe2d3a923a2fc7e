"""Who a worker is: its id, its row, and the beat that shows it lives while it has no job."""

from __future__ import annotations

import logging
import os
import platform
import socket
import threading
from collections.abc import Sequence

from sqlalchemy import update
from sqlalchemy.exc import SQLAlchemyError

from store.database import Database, database_now
from store.identifiers import new_id
from store.tables import Worker
from worker.executors import sandbox_name

logger = logging.getLogger(__name__)

PRESENCE_S = 30.0
WORKER_ID = new_id("wrk")  # before the pool forks, so that parent and children share it


def register(database: Database, *, queues: Sequence[str]) -> None:
    """Write this worker's row, so that claims can refer to it; again where it is there."""
    with database.writing() as session:
        now = database_now(session)
        session.merge(
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


def keep_present(database: Database, queues: Sequence[str], stop: threading.Event) -> None:
    """Say every `PRESENCE_S` that this worker lives, until told to stop.

    A worker that could not write its row when it started does so as soon as it can.
    """
    while not stop.wait(PRESENCE_S):
        try:
            if not _seen(database):
                register(database, queues=queues)
        except SQLAlchemyError as error:
            logger.warning("the database is away (%s); this worker seems silent", error)


def _seen(database: Database) -> bool:
    """Note that this worker lives; False when it has no row."""
    with database.writing() as session:
        now = database_now(session)
        here = update(Worker).where(Worker.id == WORKER_ID).returning(Worker.id)
        return session.scalar(here.values(last_seen_at=now)) is not None
