"""Phase `narrowing`: a small dense network with fresh weights."""

from __future__ import annotations

from cstar_core.architectures import build
from cstar_core.architectures.initialization import initialise
from cstar_core.pipeline.observer import Observer
from cstar_core.pipeline.phases.compressing import calibrated, held_out
from cstar_core.pipeline.state import State
from cstar_core.pipeline.workbench import Workbench
from cstar_core.pruning import ChannelSelection, prune
from cstar_core.training.randomness import derive_seed

PHASE = "narrowing"


def run(workbench: Workbench, state: State, observer: Observer) -> None:
    """Cut every group of channels to the same fraction and draw new weights for what is left.

    Raises TargetInfeasible when one channel in every group is still too much.
    """
    network = build(workbench.task.architecture)
    plan = ChannelSelection(network, workbench.layers, workbench.budgets).uniform()
    narrow = prune(network, plan)
    initialise(narrow, seed=derive_seed(workbench.task.seed, PHASE))
    model, score = calibrated(workbench, narrow)
    state.plan = plan.to_dict()
    state.factorised = dict(model.network.state_dict())
    state.findings[PHASE] = held_out(score)
    observer.event("network.narrowed", state.findings[PHASE])
