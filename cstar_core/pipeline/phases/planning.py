"""Phase `planning`: candidate rank plans, scored on held-out adversarial images."""

from __future__ import annotations

from typing import Any

from torch import nn

from cstar_core.factorization import factorise
from cstar_core.pipeline.observer import Observer
from cstar_core.pipeline.state import State
from cstar_core.pipeline.workbench import Workbench
from cstar_core.ranks import RankPlan, candidates
from cstar_core.training.calibration import reestimate_batch_norm
from cstar_core.training.selection import Score

PHASE = "planning"


def run(workbench: Workbench, state: State, observer: Observer) -> None:
    """Keep the candidate whose projection loses the least robust accuracy; report them all.

    Raises TargetInfeasible when no ranks meet the budgets.
    """
    network = workbench.dense_model(state.dense).network
    plans = candidates(
        network,
        workbench.layers,
        workbench.budgets,
        multiple=workbench.task.profile.rank_multiple,
    )
    scores = []
    for number, plan in enumerate(plans, start=1):
        scores.append(_score(workbench, network, plan))
        observer.progress(PHASE, number / len(plans))
    best = max(range(len(plans)), key=scores.__getitem__)
    state.plan = plans[best].to_dict()
    described = [_describe(plan, score) for plan, score in zip(plans, scores, strict=True)]
    findings = {"candidates": described, "chosen": plans[best].name}
    state.findings[PHASE] = findings
    observer.event("ranks.planned", findings)


def _score(workbench: Workbench, network: nn.Module, plan: RankPlan) -> Score:
    model = workbench.normalised(factorise(network, plan, hooi_sweeps=0))
    reestimate_batch_norm(model, workbench.calibration_batches())
    return workbench.selection().score(model)


def _describe(plan: RankPlan, score: Score) -> dict[str, Any]:
    return {
        "name": plan.name,
        "strategy": plan.strategy,
        "parameters": plan.parameters,
        "macs": plan.macs,
        "ratio": plan.ratio,
        "held_out_clean_accuracy": score.clean,
        "held_out_robust_accuracy": score.robust,
    }
