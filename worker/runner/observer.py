"""What a run of `cstar_core` says and hears, over the runner's pipe."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cstar_core.pipeline import State
from worker.protocol import CheckpointSaved, Event, Metric, Progress
from worker.runner.voice import Voice

PROGRESS_INTERVAL_S = 0.5
Overall = Callable[[str, float], float]
"""How much of the whole job is done (0..1) at a fraction of a phase."""


class RunnerObserver:
    """Says progress, metrics, events and checkpoints over the pipe; hears SIGTERM."""

    def __init__(
        self, voice: Voice, checkpoint: Path, *, save_interval_s: float, overall: Overall
    ) -> None:
        self._voice, self._overall = voice, overall
        self._checkpoint = checkpoint
        self._save_interval_s = save_interval_s
        self._saved_at = time.monotonic()
        self._said_at = 0.0
        self._phase = ""
        self._began: tuple[float, float] | None = None
        self._stop = False
        signal.signal(signal.SIGTERM, self._on_sigterm)

    def progress(self, phase: str, fraction: float) -> None:
        """Say how far the whole run is, at most twice a second within a phase."""
        now = time.monotonic()
        if phase == self._phase and now - self._said_at < PROGRESS_INTERVAL_S:
            return
        self._phase, self._said_at = phase, now
        done = self._overall(phase, fraction)
        self._voice.say(Progress(phase=phase, progress=done, eta_s=self._eta(now, done)))

    def metric(self, phase: str, name: str, value: float, *, step: int) -> None:
        """Say a measured value; one that is not finite cannot be written as JSON."""
        if math.isfinite(value):
            self._voice.say(Metric(phase=phase, name=name, step=step, value=value))

    def event(self, name: str, data: Mapping[str, Any]) -> None:
        """Say something worth keeping."""
        self._voice.say(Event(name=name, data=dict(data)))

    def save_due(self) -> bool:
        """Say whether the last checkpoint is old enough for a new one."""
        return time.monotonic() - self._saved_at >= self._save_interval_s

    def save(self, phase: str, state: State, *, finished: bool = False) -> None:
        """Write a checkpoint and tell the supervisor to keep it."""
        state.save(self._checkpoint)
        self._saved_at = time.monotonic()
        self._voice.say(CheckpointSaved(phase=phase, finished=finished))

    def stop_requested(self) -> bool:
        """Say whether SIGTERM has come."""
        return self._stop

    def _on_sigterm(self, *_: object) -> None:
        self._stop = True

    def _eta(self, now: float, done: float) -> float | None:
        """Seconds left if the rest goes as fast as what this attempt has done."""
        if self._began is None:
            self._began = (now, done)
        since, start = self._began
        return (now - since) * (1 - done) / (done - start) if done > start else None
