"""Phase `pruning`: the dropped channels are taken out of the dense network."""

from __future__ import annotations

from cstar_core.pipeline.observer import Observer
from cstar_core.pipeline.phases.compressing import calibrated, held_out
from cstar_core.pipeline.state import State
from cstar_core.pipeline.workbench import Workbench
from cstar_core.pruning import PruningPlan, prune

PHASE = "pruning"


def run(workbench: Workbench, state: State, observer: Observer) -> None:
    """Prune the robust dense network as planned."""
    dense = workbench.dense_model(state.dense).network
    model, score = calibrated(workbench, prune(dense, PruningPlan.from_dict(state.plan)))
    state.factorised = dict(model.network.state_dict())
    state.findings[PHASE] = held_out(score)
    observer.event("network.pruned", state.findings[PHASE])
