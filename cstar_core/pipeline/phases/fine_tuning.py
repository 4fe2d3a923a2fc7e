"""Phase `fine_tuning`: adversarial training of the factors and everything else."""

from __future__ import annotations

from cstar_core.pipeline.observer import Observer
from cstar_core.pipeline.state import State
from cstar_core.pipeline.training_phase import train
from cstar_core.pipeline.workbench import Workbench

PHASE = "fine_tuning"


def run(workbench: Workbench, state: State, observer: Observer) -> None:
    """Train the factorised network; the epoch kept is the best on held-out training images."""
    model = workbench.factorised_model(state)
    trainer = workbench.trainer(model, workbench.task.profile.finetune, phase=PHASE)
    last = train(trainer, state, observer, phase=PHASE)
    trainer.load_best()
    state.factorised = dict(model.network.state_dict())
    state.findings[PHASE] = {"last_epoch": last, "best_epoch": int(last["best_epoch"])}
