"""Watching an evaluation inside a phase: progress, saving and stopping."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cstar_core.pipeline.observer import Interrupted, Observer
from cstar_core.pipeline.state import State


class EvaluationWatch:
    """Passes on what an evaluation says; saves and stops it."""

    def __init__(self, phase: str, state: State, observer: Observer) -> None:
        self._phase, self._state, self._observer = phase, state, observer

    def progress(self, fraction: float) -> None:
        """Show how much is done; in the middle of a long attack too, which then starts again."""
        self._observer.progress(self._phase, fraction)
        self._stop_if_asked()

    def kept(self) -> None:
        """Save when that is due."""
        if self._observer.save_due():
            self._observer.save(self._phase, self._state)
        self._stop_if_asked()

    def _stop_if_asked(self) -> None:
        """Save and raise Interrupted when the observer asks for a stop."""
        if self._observer.stop_requested():
            self._observer.save(self._phase, self._state)
            raise Interrupted(self._phase)

    def event(self, name: str, data: Mapping[str, Any]) -> None:
        """Pass on something worth keeping."""
        self._observer.event(name, data)
