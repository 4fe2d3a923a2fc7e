"""What a long evaluation tells the outside while it runs, and how the outside stops it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from cstar_core.evaluation.batches import BatchDone


class Watch(Protocol):
    """Hears of progress and figures; what it raises stops the evaluation, kept parts stay kept."""

    def progress(self, fraction: float) -> None:
        """Tell how much of the whole evaluation is done (0..1): often, also within a batch."""
        ...

    def kept(self) -> None:
        """Tell that a batch is finished and kept: a good moment to save."""
        ...

    def event(self, name: str, data: Mapping[str, Any]) -> None:
        """Tell something worth keeping."""
        ...


class Unwatched:
    """A watch that nobody looks at."""

    def progress(self, fraction: float) -> None:
        """Say nothing."""

    def kept(self) -> None:
        """Say nothing."""

    def event(self, name: str, data: Mapping[str, Any]) -> None:
        """Say nothing."""


class Meter:
    """The part of a watched evaluation from `start` on that one piece takes, `share` of it all."""

    def __init__(self, watch: Watch, *, start: float, share: float) -> None:
        self._watch, self._start, self._share = watch, start, share
        self._fraction = 0.0

    def __call__(self, done: BatchDone) -> None:
        """A batch of the piece is finished and kept."""
        self.reached(done.done / done.total)
        self._watch.kept()

    def reached(self, fraction: float) -> None:
        """So much of the piece is done; what has been reached is never taken back."""
        self._fraction = max(self._fraction, min(1.0, fraction))
        self.heartbeat()

    def heartbeat(self) -> None:
        """Show life in the middle of a long batch."""
        self._watch.progress(self._start + self._share * self._fraction)

    def event(self, name: str, data: Mapping[str, Any]) -> None:
        """Pass on something worth keeping."""
        self._watch.event(name, data)
