"""Phase `channel_planning`: candidate pruning plans, scored on held-out adversarial images."""

from __future__ import annotations

from cstar_core.pipeline.observer import Observer
from cstar_core.pipeline.phases.compressing import calibrated, held_out
from cstar_core.pipeline.state import State
from cstar_core.pipeline.workbench import Workbench
from cstar_core.pruning import ChannelSelection, prune

PHASE = "channel_planning"


def run(workbench: Workbench, state: State, observer: Observer) -> None:
    """Keep the candidate that loses the least robust accuracy when it is pruned; report both.

    Raises TargetInfeasible when one channel in every group is still too much.
    """
    network = workbench.dense_model(state.dense).network
    selection = ChannelSelection(network, workbench.layers, workbench.budgets)
    plans = (selection.uniform(), selection.ranked())
    scores = []
    for number, plan in enumerate(plans, start=1):
        scores.append(calibrated(workbench, prune(network, plan))[1])
        observer.progress(PHASE, number / len(plans))
    best = max(range(len(plans)), key=scores.__getitem__)
    state.plan = plans[best].to_dict()
    described = [
        {
            "name": plan.name,
            "strategy": plan.strategy,
            "parameters": plan.parameters,
            "macs": plan.macs,
            "ratio": plan.ratio,
            **held_out(score),
        }
        for plan, score in zip(plans, scores, strict=True)
    ]
    state.findings[PHASE] = {"candidates": described, "chosen": plans[best].name}
    observer.event("channels.planned", state.findings[PHASE])
