"""When keys were last used, written together now and then.

Not in the request itself: a poll must not wait for the write lock of a database, or fail with a
full disk. A process that is killed forgets what it had not written.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import datetime

from sqlalchemy import or_, update
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from store.database import Database
from store.tables import ApiKey

INTERVAL_S = 60.0
_log = logging.getLogger(__name__)


class LastUsed:
    """Remembers the newest use of each key until `write`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._used: dict[str, datetime] = {}

    def note(self, key_id: str, moment: datetime) -> None:
        """Remember that a key was used, by the database's clock."""
        with self._lock:
            self._used[key_id] = moment

    def write(self) -> None:
        """Write what was remembered, in one transaction; an earlier time replaces no later one."""
        with self._lock:
            used, self._used = self._used, {}
        if not used:
            return
        with self._database.writing() as session:
            for key_id, moment in sorted(used.items()):  # one order for all: no deadlock
                newer = or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < moment)
                statement = update(ApiKey).where(ApiKey.id == key_id, newer)
                session.execute(statement.values(last_used_at=moment))


@asynccontextmanager
async def written_now_and_then(last_used: LastUsed) -> AsyncIterator[None]:
    """Write every `INTERVAL_S` while the block runs, and at its end."""
    task = asyncio.create_task(_write_forever(last_used))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await _write(last_used)


async def _write_forever(last_used: LastUsed) -> None:
    while True:
        await asyncio.sleep(INTERVAL_S)
        await _write(last_used)


async def _write(last_used: LastUsed) -> None:
    try:
        await run_in_threadpool(last_used.write)
    except SQLAlchemyError as error:  # also when no connection became free
        _log.warning("when keys were last used was not written: %s", error)
