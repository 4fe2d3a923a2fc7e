"""Ending a runner when its lease is over, even while its supervisor waits for something."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Deadman:
    """Calls `act` once at a time on the monotonic clock, unless that is put off or called off.

    A supervisor that hangs in a call to a database or store that went away cannot do it itself.
    """

    def __init__(self, act: Callable[[], None], *, at: float) -> None:
        self._act, self._at = act, at
        self._called_off = False
        self.has_acted = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def put_off(self, at: float) -> None:
        """Wait until `at` instead."""
        with self._changed:
            self._at = at
            self._changed.notify()

    def call_off(self) -> None:
        """Never act from now on."""
        with self._changed:
            self._called_off = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        with self._changed:
            while not self._called_off and (left := self._at - time.monotonic()) > 0:
                self._changed.wait(left)
            if not self._called_off:
                self.has_acted = True
                self._act()
