"""A stage: so many minutes of work on whatever is next, after which everything is on disk."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cstar_core.pipeline import Interrupted, Method, State

STATE = "state.pt"
PROJECTED = "projected.pt"
SAVE_EVERY_S = 120.0
LINE = 160


class Clock:
    """Says when the minutes of a stage are over."""

    def __init__(self, minutes: float) -> None:
        self._end = time.monotonic() + 60 * minutes

    def over(self) -> bool:
        """Whether the stage is to save and stop."""
        return time.monotonic() >= self._end


class StageObserver:
    """Keeps the state of one run in `folder` and stops it after its training or by the clock.

    The state right after the network became small is kept beside it, so that it can be attacked
    on test images as it was before fine-tuning.
    """

    def __init__(self, folder: Path, clock: Clock, method: Method) -> None:
        self.folder, self.clock, self.method = folder, clock, method
        self.trained = False
        self._started = time.monotonic()
        self._saved = time.monotonic()

    @property
    def seconds(self) -> float:
        """Wall time since the run was taken up."""
        return time.monotonic() - self._started

    def progress(self, phase: str, fraction: float) -> None:
        """Not shown: the epochs are."""

    def metric(self, phase: str, name: str, value: float, *, step: int) -> None:
        """Print what tells how training goes."""
        if name in ("held_out_robust_accuracy", "admm_gap"):
            self._log(f"{phase} {step}: {name} {value:.3f}")

    def event(self, name: str, data: Mapping[str, Any]) -> None:
        """Print what happened, in one line."""
        self._log(f"{name}: {data}"[:LINE])

    def save_due(self) -> bool:
        """Whether the last save is long ago."""
        return time.monotonic() - self._saved > SAVE_EVERY_S

    def save(self, phase: str, state: State, *, finished: bool = False) -> None:
        """Write the state; remember when the training is over."""
        state.save(self.folder / STATE)
        self._saved = time.monotonic()
        if finished and phase == self.method.compressed_by:
            state.save(self.folder / PROJECTED)
        if finished and phase == self.method.last_training:
            self.trained = True

    def stop_requested(self) -> bool:
        """Whether the clock has run out or nothing is left to train."""
        return self.trained or self.clock.over()

    def keep(self, state: State) -> None:
        """Between two batches of the evaluation: save when due; raises Interrupted at the end."""
        over = self.clock.over()
        if over or self.save_due():
            self.save("evaluating", state)
        if over:
            raise Interrupted("evaluating")

    def _log(self, line: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {self.folder.name} {line}", flush=True)


def load_state(folder: Path) -> State:
    """Return the state that a stage left in `folder`, or a fresh one."""
    path = folder / STATE
    return State.load(path) if path.exists() else State()


@contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Yield whether this process alone may work in `folder`; a crash gives the claim up."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
