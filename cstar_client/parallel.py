"""Work for several threads, which Ctrl-C ends at once."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress


def side_by_side(work: Callable[[int], None], numbers: Sequence[int], *, threads: int) -> None:
    """Do the work for each number; raises the first error, after what is under way.

    The threads are daemons, unlike those of `concurrent.futures`: Ctrl-C waits for none of them.
    """
    ahead, errors, stopped = deque(numbers), deque[BaseException](), threading.Event()

    def run() -> None:
        with suppress(IndexError):  # nothing is left
            while not stopped.is_set():
                number = ahead.popleft()
                try:
                    work(number)
                except BaseException as error:  # whoever waits is told
                    errors.append(error)
                    stopped.set()

    started = [threading.Thread(target=run, daemon=True) for _ in range(threads)]
    try:
        for thread in started:
            thread.start()
        for thread in started:
            thread.join()
    finally:
        stopped.set()
    if errors:
        raise errors[0]
