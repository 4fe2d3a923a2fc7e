"""What a run tells the outside, and how the outside stops it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from cstar_core.pipeline.state import State


class Interrupted(Exception):
    """The run was asked to stop; its state has been saved."""


class Observer(Protocol):
    """Hears of progress; is asked at every step whether to save and whether to stop."""

    def progress(self, phase: str, fraction: float) -> None:
        """Tell how much of `phase` is done (0..1); called often."""
        ...

    def metric(self, phase: str, name: str, value: float, *, step: int) -> None:
        """Tell a measured value; `step` counts epochs of the phase."""
        ...

    def event(self, name: str, data: Mapping[str, Any]) -> None:
        """Tell something worth keeping."""
        ...

    def save_due(self) -> bool:
        """Say whether it is time to save within a phase."""
        ...

    def save(self, phase: str, state: State, *, finished: bool = False) -> None:
        """Keep the state so that a later run can start from it; `finished`: `phase` is over."""
        ...

    def stop_requested(self) -> bool:
        """Say whether the run should save and raise Interrupted."""
        ...
