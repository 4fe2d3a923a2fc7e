"""The jobs that somebody watches: one look at the database for all of them.

Any number of streams costs one task, which looks every `LOOK_S` seconds while there are any, and
keeps the last messages of each job ready to be sent. A stream keeps nothing but its own place, so
one whose client is slow holds nobody up and fills no memory.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

import anyio
from starlette.concurrency import run_in_threadpool

from api.jobs.news import Known, Message, News, Progress, look
from store.database import Database
from store.tables import Job

LOOK_S = 0.25
RECOVER_S = 2.0  # after a look that failed
KEPT = 256  # messages of a kind that are kept ready for a job
logger = logging.getLogger(__name__)


class Ready:
    """The last messages of a kind, without a gap up to the number `last`."""

    def __init__(self, last: int) -> None:
        self.last = last
        self._messages: deque[Message] = deque(maxlen=KEPT)

    def add(self, message: Message) -> None:
        """Append the next message."""
        self._messages.append(message)
        self.last = message.seq

    def after(self, seq: int) -> list[Message] | None:
        """Return what came behind `seq`; None when that is no longer all here."""
        oldest = self._messages[0].seq if self._messages else self.last + 1
        return None if seq + 1 < oldest else [m for m in self._messages if m.seq > seq]


class Feed:
    """What is new of one job since the first of its streams began."""

    def __init__(self, job: Job) -> None:
        self.streams = 0
        self.over: Literal["", "gone", "closing"] = ""
        self.progress = Progress.model_validate(job)
        self.events = Ready(job.event_count)
        self.metrics = Ready(job.metric_count)
        self.changed = asyncio.Event()
        self._version = job.version

    @property
    def known(self) -> Known:
        """How far the job is known here."""
        return Known(self._version, self.events.last, self.metrics.last)

    def take(self, news: News | None) -> None:
        """Take what a look has found; None when there is no such job any more."""
        if news is None:
            self.end("gone")
        elif news.version != self._version:
            self._version, self.progress = news.version, news.progress
            for message in news.events:
                self.events.add(message)
            for message in news.metrics:
                self.metrics.add(message)
            self._wake()

    def end(self, why: Literal["gone", "closing"]) -> None:
        """Have every stream come to its end."""
        self.over = why
        self._wake()

    def _wake(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


class Feeds:
    """The feeds of one process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._feeds: dict[str, Feed] = {}
        self._streams: Counter[str] = Counter()
        self._looking: asyncio.Task[None] | None = None
        self._closing = False

    def streams_of(self, tenant_id: str) -> int:
        """Return how many streams of a tenant are open."""
        return self._streams[tenant_id]

    @contextmanager
    def watch(self, job: Job) -> Iterator[Feed]:
        """Yield the feed of a job that was just read; it is there while somebody watches."""
        feed = self._feeds.setdefault(job.id, Feed(job))
        feed.streams += 1
        self._streams[job.tenant_id] += 1
        if self._closing:
            feed.end("closing")
        if self._looking is None:
            self._looking = asyncio.create_task(self._look_while_watched())
        try:
            yield feed
        finally:
            feed.streams -= 1
            self._streams[job.tenant_id] -= 1
            if feed.streams == 0:
                del self._feeds[job.id]
                self._streams += Counter()  # forgets the tenants that have none

    def close(self) -> None:
        """End every stream: the server stops, and their clients come back to the next one."""
        self._closing = True
        for feed in self._feeds.values():
            feed.end("closing")

    async def _look_while_watched(self) -> None:
        while self._feeds:
            await anyio.sleep(LOOK_S)
            try:
                await self._look()
            except Exception:
                logger.exception(
                    "cannot see what is new of the jobs that are watched; trying again"
                )
                await anyio.sleep(RECOVER_S)
        self._looking = None

    async def _look(self) -> None:
        feeds = dict(self._feeds)
        known = {job_id: feed.known for job_id, feed in feeds.items()}
        news = await run_in_threadpool(self._read, known)
        for job_id, feed in feeds.items():
            feed.take(news.get(job_id))

    def _read(self, known: Mapping[str, Known]) -> dict[str, News]:
        with self._database.reading() as session:
            return look(session, known)
