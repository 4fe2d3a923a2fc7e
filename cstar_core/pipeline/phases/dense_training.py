"""Phase `dense_training`: make a network robust that was uploaded without being so."""

from __future__ import annotations

from dataclasses import replace

from cstar_core.pipeline.observer import Observer
from cstar_core.pipeline.state import State
from cstar_core.pipeline.training_phase import train
from cstar_core.pipeline.workbench import Workbench
from cstar_core.training.config import TrainingConfig

PHASE = "dense_training"


def run(workbench: Workbench, state: State, observer: Observer) -> None:
    """Train the dense network adversarially, unless `checking` found it robust already.

    The result is kept as the teacher where a later phase of the method distils.
    """
    _train(workbench, state, observer)
    if any(config.distillation is not None for config in _later(workbench)):
        state.teacher = dict(state.dense)


def _later(workbench: Workbench) -> tuple[TrainingConfig, TrainingConfig]:
    return workbench.profile.admm, workbench.profile.finetune


def _train(workbench: Workbench, state: State, observer: Observer) -> None:
    # It has no teacher: it is to become one.
    config = replace(workbench.profile.dense, distillation=None)
    if state.findings["checking"]["robust"] or config.epochs == 0:
        reason = "robust already" if config.epochs else "the options ask for no epochs of it"
        state.findings[PHASE] = {"skipped": reason}
        observer.event("phase.skipped", {"phase": PHASE, "reason": reason})
        return
    model = workbench.dense_model(state.dense)
    trainer = workbench.trainer(model, config, phase=PHASE)
    state.findings[PHASE] = {"last_epoch": train(trainer, state, observer, phase=PHASE)}
    trainer.load_best()
    state.dense = dict(model.network.state_dict())
