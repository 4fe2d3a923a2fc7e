"""The sequence of phases, and going through it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cstar_core.pipeline.observer import Interrupted, Observer
from cstar_core.pipeline.phases import (
    admm,
    checking,
    dense_training,
    evaluating,
    exporting,
    factorising,
    fine_tuning,
    planning,
)
from cstar_core.pipeline.state import State
from cstar_core.pipeline.workbench import Workbench


@dataclass(frozen=True)
class Phase:
    """A step of the run; `share` is about how much of the run's time it takes."""

    name: str
    run: Callable[[Workbench, State, Observer], None]
    share: float


PHASES = (
    Phase(checking.PHASE, checking.run, 0.02),
    Phase(dense_training.PHASE, dense_training.run, 0.05),
    Phase(planning.PHASE, planning.run, 0.04),
    Phase(admm.PHASE, admm.run, 0.25),
    Phase(factorising.PHASE, factorising.run, 0.02),
    Phase(fine_tuning.PHASE, fine_tuning.run, 0.2),
    Phase(evaluating.PHASE, evaluating.run, 0.37),
    Phase(exporting.PHASE, exporting.run, 0.05),
)


def run(workbench: Workbench, state: State, observer: Observer) -> None:
    """Go through the phases that `state` has not finished, saving after each.

    Raises Interrupted when the observer asks for a stop; the state is saved then.
    """
    for phase in PHASES:
        if phase.name in state.finished:
            continue
        observer.progress(phase.name, 0.0)
        phase.run(workbench, state, observer)
        state.finished.append(phase.name)
        if phase is not PHASES[-1]:  # after the last one there is nothing to resume
            observer.save(phase.name, state, finished=True)
        if observer.stop_requested() and phase is not PHASES[-1]:
            raise Interrupted(phase.name)


def overall(phase: str, fraction: float) -> float:
    """Return the progress of the whole run (0..1) at `fraction` of `phase`."""
    before = 0.0
    for entry in PHASES:
        if entry.name == phase:
            return min(1.0, before + entry.share * fraction)
        before += entry.share
    raise KeyError(phase)
