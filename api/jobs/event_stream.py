"""`text/event-stream`: the events of a job as they happen, with its metrics and progress.

The wire format is that of https://html.spec.whatwg.org/multipage/server-sent-events.html. Events
have their number as id, and a client that comes back with it in `Last-Event-ID` misses none.
Metrics and progress are told as they come and are not repeated.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from api.jobs import history
from api.jobs.feeds import Feed, Feeds
from api.jobs.news import Message, event_message, progress_text
from api.problems import HttpError
from store.database import Database
from store.states import FINAL
from store.tables import Job

KEEPALIVE_S = 15.0
LONGEST_S = 900.0  # then the client comes back, and its key is looked at again
RETRY_MS = 2000
MOST_STREAMS = 500  # of a tenant, open at once in one process
PAGE = 500
ENDS = {f"job.{state}" for state in FINAL}
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", "Vary": "Accept"}


def asked_for(accept: str | None) -> bool:
    """Return whether `Accept` names the media type of event streams."""
    ranges = (part.partition(";")[0] for part in (accept or "").lower().split(","))
    return any(name.strip() == EventSourceResponse.media_type for name in ranges)


def is_over(job: Job, after: int) -> bool:
    """Return whether nothing comes behind the number `after` any more."""
    return job.state in FINAL and after >= job.event_count


def too_many_streams() -> HttpError:
    """Return the 429 problem of a tenant that holds `MOST_STREAMS` open."""
    detail = f"There are {MOST_STREAMS} event streams open already; end some, or list the events."
    return HttpError("rate_limited", detail, headers={"Retry-After": str(RETRY_MS // 1000)})


class EventStream(EventSourceResponse):
    """Sends the events of a job behind the number `after`, up to its final one."""

    def __init__(self, feeds: Feeds, database: Database, job: Job, *, after: int) -> None:
        super().__init__(self._texts(), headers=HEADERS)
        self._feeds, self._database, self._job = feeds, database, job
        self._feed: Feed | None = None
        self._after = min(after, job.event_count)
        self._metric = job.metric_count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the end; whatever ends it, the job is watched no longer."""
        with self._feeds.watch(self._job) as self._feed:
            await super().__call__(scope, receive, send)

    async def _texts(self) -> AsyncIterator[bytes]:
        feed, told = self._feed, None
        assert feed is not None
        until = anyio.current_time() + LONGEST_S
        yield format_sse_event(retry=RETRY_MS)
        while not feed.over and anyio.current_time() < until:
            changed = feed.changed  # before looking: what comes meanwhile wakes us at once
            for metric in feed.metrics.after(self._metric) or ():
                yield metric.text
            self._metric = feed.metrics.last
            for event in await self._events(feed):
                self._after = event.seq
                yield event.text
                if event.type in ENDS:
                    return
            if self._after < feed.events.last:
                continue
            if feed.progress != told:
                told = feed.progress
                yield progress_text(told)
            with anyio.move_on_after(KEEPALIVE_S):
                await changed.wait()
            if not changed.is_set():
                yield KEEPALIVE_COMMENT

    async def _events(self, feed: Feed) -> list[Message]:
        """Return the next events: those that are ready, or a page of older ones."""
        ready = feed.events.after(self._after)
        return await run_in_threadpool(self._page) if ready is None else ready

    def _page(self) -> list[Message]:
        with self._database.reading() as session:
            found = history.events(session, self._job.id, after=self._after, limit=PAGE)
            return [event_message(event) for event in found.rows]
