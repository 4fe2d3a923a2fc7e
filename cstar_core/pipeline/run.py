"""The phases of a method, and going through them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cstar_core.pipeline.methods import METHODS, TRAINING, Method
from cstar_core.pipeline.observer import Interrupted, Observer
from cstar_core.pipeline.phases import (
    admm,
    channel_planning,
    checking,
    dense_training,
    evaluating,
    exporting,
    factorising,
    fine_tuning,
    narrowing,
    planning,
    pruning,
    training,
)
from cstar_core.pipeline.state import State
from cstar_core.pipeline.task import Task
from cstar_core.pipeline.workbench import Workbench


@dataclass(frozen=True)
class Phase:
    """A step of the run; `share` is about how much of the run's time it takes.

    One that `trains` spends that time in an `AdversarialTrainer`.
    """

    name: str
    run: Callable[[Workbench, State, Observer], None]
    share: float
    trains: bool = False


STEPS = {
    module.PHASE: module.run
    for module in (
        checking,
        dense_training,
        planning,
        channel_planning,
        admm,
        factorising,
        pruning,
        narrowing,
        fine_tuning,
        training,
        evaluating,
        exporting,
    )
}


def phases_of(task: Task) -> tuple[Phase, ...]:
    """Return the phases of the task's method, in order."""
    return _phases(METHODS[task.method])


def _phases(method: Method) -> tuple[Phase, ...]:
    return tuple(
        Phase(name, STEPS[name], share, trains=name in TRAINING)
        for name, share in method.shares.items()
    )


PHASES = _phases(METHODS["cstar"])
"""The phases of the default method."""


def run(
    workbench: Workbench,
    state: State,
    observer: Observer,
    *,
    phases: Sequence[Phase] | None = None,
) -> None:
    """Go through the phases that `state` has not finished, saving after each.

    `phases` takes the place of those of the task's method, for a caller that has wrapped them.
    Raises Interrupted when the observer asks for a stop; the state is saved then.
    """
    steps = phases_of(workbench.task) if phases is None else phases
    for phase in steps:
        if phase.name in state.finished:
            continue
        observer.progress(phase.name, 0.0)
        phase.run(workbench, state, observer)
        state.finished.append(phase.name)
        if phase is not steps[-1]:  # after the last one there is nothing to resume
            observer.save(phase.name, state, finished=True)
        if observer.stop_requested() and phase is not steps[-1]:
            raise Interrupted(phase.name)


def overall(phase: str, fraction: float, *, method: str = "cstar") -> float:
    """Return the progress of the whole run (0..1) at `fraction` of `phase` of a method.

    Raises KeyError for a phase that the method does not have.
    """
    before = 0.0
    for name, share in METHODS[method].shares.items():
        if name == phase:
            return min(1.0, before + share * fraction)
        before += share
    raise KeyError(phase)
