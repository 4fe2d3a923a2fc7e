"""Observers of a phase that several processes go through together.

The leader's tells the outside and hears of it; whether to stop is its word, which every process
asks for at the same places. The others' say nothing and save nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cstar_core.pipeline.observer import Observer
from cstar_core.pipeline.state import State
from cstar_core.training.distributed import World


@dataclass(frozen=True)
class LeadersObserver:
    """`observer`, whose answer to a stop goes to every process of `world`."""

    observer: Observer
    world: World

    def progress(self, phase: str, fraction: float) -> None:
        """Tell how much of `phase` is done."""
        self.observer.progress(phase, fraction)

    def metric(self, phase: str, name: str, value: float, *, step: int) -> None:
        """Tell a measured value."""
        self.observer.metric(phase, name, value, step=step)

    def event(self, name: str, data: Mapping[str, Any]) -> None:
        """Tell something worth keeping."""
        self.observer.event(name, data)

    def save_due(self) -> bool:
        """Say whether it is time to save; the others need not know."""
        return self.observer.save_due()

    def save(self, phase: str, state: State, *, finished: bool = False) -> None:
        """Keep the state, which is the same in every process."""
        self.observer.save(phase, state, finished=finished)

    def stop_requested(self) -> bool:
        """Say, to every process, whether to stop."""
        return self.world.agreed(self.observer.stop_requested())


@dataclass(frozen=True)
class FollowersObserver:
    """The observer of a process that does not lead `world`."""

    world: World

    def progress(self, phase: str, fraction: float) -> None:
        """Say nothing: the leader does."""

    def metric(self, phase: str, name: str, value: float, *, step: int) -> None:
        """Say nothing: the leader does."""

    def event(self, name: str, data: Mapping[str, Any]) -> None:
        """Say nothing: the leader does."""

    def save_due(self) -> bool:
        """Never: the leader saves."""
        return False

    def save(self, phase: str, state: State, *, finished: bool = False) -> None:
        """Save nothing: the leader does."""

    def stop_requested(self) -> bool:
        """Return the leader's word."""
        return self.world.agreed(False)
