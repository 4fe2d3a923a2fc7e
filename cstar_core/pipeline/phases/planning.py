"""Phase `planning`: candidate rank plans, scored on held-out adversarial images."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from cstar_core.attacks import pgd
from cstar_core.evaluation.batches import unit_interval
from cstar_core.factorization import factorise
from cstar_core.folding import attack_target
from cstar_core.normalization import NormalizedModel
from cstar_core.pipeline.observer import Observer
from cstar_core.pipeline.phases.compressing import calibrated, held_out
from cstar_core.pipeline.state import State
from cstar_core.pipeline.workbench import Workbench
from cstar_core.ranks import (
    LatencyTable,
    RankPlan,
    candidates,
    fisher_weights,
    time_layers,
    why_dense,
)
from cstar_core.training.randomness import generator
from cstar_core.training.selection import Score

PHASE = "planning"
LATENCY_TABLE = "latency_table"  # among the findings, so that a resumed run plans by the same

FISHER_EXAMPLES = 64
FISHER_STEPS = 3


def run(workbench: Workbench, state: State, observer: Observer) -> None:
    """Keep the candidate whose projection loses the least robust accuracy; report them all.

    Raises TargetInfeasible when no ranks meet the budgets.
    """
    model = workbench.dense_model(state.dense)
    _time_layers(workbench, state, model, observer)
    plans = _plans(workbench, state, model)
    scores = []
    for number, plan in enumerate(plans, start=1):
        projected = factorise(model.network, plan, hooi_sweeps=0)
        scores.append(calibrated(workbench, projected)[1])
        observer.progress(PHASE, number / len(plans))
    best = max(range(len(plans)), key=scores.__getitem__)
    state.plan = plans[best].to_dict()
    described = [_describe(plan, score) for plan, score in zip(plans, scores, strict=True)]
    findings = {"candidates": described, "chosen": plans[best].name}
    state.findings[PHASE] = findings
    observer.event("ranks.planned", findings)


def latency_table(state: State) -> LatencyTable | None:
    """The times by which the task is planned, where it has a limit on latency."""
    saved = state.findings.get(LATENCY_TABLE)
    return saved and LatencyTable.from_dict(saved)


def _time_layers(workbench: Workbench, state: State, model: nn.Module, observer: Observer) -> None:
    """Time the layers once and save: a run that is resumed must not measure again."""
    wanted = workbench.task.limits.max_latency_ms is not None
    if wanted and LATENCY_TABLE not in state.findings:
        state.findings[LATENCY_TABLE] = time_layers(model, workbench.layers).to_dict()
        observer.save(PHASE, state)


def _plans(workbench: Workbench, state: State, model: NormalizedModel) -> list[RankPlan]:
    """The candidates that the task's method wants scored."""
    plans = candidates(
        model.network,
        workbench.layers,
        workbench.budgets,
        latency=latency_table(state),
        weights=_fisher_weights(workbench, model),
        multiple=workbench.profile.rank_multiple,
    )
    return [plan for plan in plans if workbench.method.plans(plan.strategy)]


def _fisher_weights(workbench: Workbench, model: NormalizedModel) -> dict[str, float]:
    """What each layer matters to the adversarial loss, on a few training images."""
    seed, threat = workbench.task.seed, workbench.task.threat
    order = torch.randperm(len(workbench.training), generator=generator(seed, "fisher"))
    examples = workbench.training.take(order[:FISHER_EXAMPLES])
    perturbed = pgd(
        attack_target(model),
        unit_interval(examples.images),
        examples.labels,
        threat,
        steps=FISHER_STEPS,
        step_size=threat.epsilon / 2,
        random_start=True,
        generator=generator(seed, "fisher-attack", device=workbench.device),
    )
    parameters = {
        layer.name: model.network.get_parameter(f"{layer.name}.weight")
        for layer in workbench.layers
        if not why_dense(layer, "linear")
    }
    return fisher_weights(model, parameters, perturbed, examples.labels)


def _describe(plan: RankPlan, score: Score) -> dict[str, Any]:
    return {
        "name": plan.name,
        "strategy": plan.strategy,
        "parameters": plan.parameters,
        "macs": plan.macs,
        "bytes": plan.bytes,
        "latency_ms": plan.latency_ms,
        "ratio": plan.ratio,
        **held_out(score),
    }
