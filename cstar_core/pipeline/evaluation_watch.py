"""Watching an evaluation inside a phase: progress, saving and stopping."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cstar_core.pipeline.observer import Interrupted, Observer
from cstar_core.pipeline.state import State


class EvaluationWatch:
    """Passes on what an evaluation says; saves and stops after a finished batch."""

    def __init__(self, phase: str, state: State, observer: Observer) -> None:
        self._phase, self._state, self._observer = phase, state, observer

    def progress(self, fraction: float) -> None:
        """Show how much is done."""
        self._observer.progress(self._phase, fraction)

    def kept(self) -> None:
        """Save when that is due or a stop is requested; raises Interrupted for the latter."""
        stop = self._observer.stop_requested()
        if stop or self._observer.save_due():
            self._observer.save(self._phase, self._state)
        if stop:
            raise Interrupted(self._phase)

    def event(self, name: str, data: Mapping[str, Any]) -> None:
        """Pass on something worth keeping."""
        self._observer.event(name, data)
