"""Threads that complete uploads, longer than the request that began it if need be."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

AT_ONCE = 2


class Stopping(Exception):
    """The process is about to end; another will go on."""


class Completions:
    """Carries out completions, AT_ONCE at a time."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="completion")
        self._stopping = threading.Event()

    async def run(self, work: Callable[[], None], *, seconds: float) -> None:
        """Start `work` and wait for it, at most `seconds`; raises what it raises meanwhile."""
        running = copy_context().run
        future = asyncio.get_running_loop().run_in_executor(self._threads, running, work)
        done, _ = await asyncio.wait([future], timeout=seconds)
        if done:
            future.result()
        else:
            future.add_done_callback(_look_at)

    def check(self) -> None:
        """Raise Stopping once the process is about to end; `work` calls this often."""
        if self._stopping.is_set():
            raise Stopping

    def close(self) -> None:
        """Have all work break off."""
        self._stopping.set()
        self._threads.shutdown(wait=True, cancel_futures=True)


def _look_at(future: asyncio.Future[None]) -> None:
    """Take note of an exception that nobody waits for any more: its work has told of it."""
    if not future.cancelled():
        future.exception()
