"""Phase `admm`: adversarial training that pulls every planned layer towards its low-rank target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from torch import Tensor, nn

from cstar_core.pipeline.observer import Observer
from cstar_core.pipeline.phases.planning import latency_table
from cstar_core.pipeline.state import State
from cstar_core.pipeline.training_phase import train
from cstar_core.pipeline.workbench import Workbench
from cstar_core.projection import project
from cstar_core.ranks import RankPlan, eased, renew, spectra, why_dense
from cstar_core.training.admm import Admm, Projections, initial_rho

PHASE = "admm"
LARGEST_GOOD_GAP = 0.3


def run(workbench: Workbench, state: State, observer: Observer) -> None:
    """Run ADMM; leaves the dense weights near the low-rank set, the final ranks, and Z."""
    config = workbench.profile.admm
    model = workbench.dense_model(state.dense)
    constraint = _constraint(workbench, state, model.network, observer)
    teacher = workbench.teacher(state, config)
    trainer = workbench.trainer(model, config, phase=PHASE, constraint=constraint, teacher=teacher)
    constraint.rho = initial_rho(
        learning_rate=config.learning_rate,
        momentum=config.momentum,
        steps_per_epoch=trainer.steps_per_epoch,
        pull=constraint.config.pull,
    )
    last = train(
        trainer,
        state,
        observer,
        phase=PHASE,
        extra_metrics=lambda: {f"gap/{k}": v for k, v in constraint.residuals.items()},
    )
    trainer.load_best()
    state.dense = dict(model.network.state_dict())
    state.admm_targets = dict(constraint.target)
    state.findings[PHASE] = _findings(constraint, last)
    observer.event("admm.finished", state.findings[PHASE])


def _constraint(workbench: Workbench, state: State, network: nn.Module, observer: Observer) -> Admm:
    """ADMM on every layer the plan's scope allows; those the plan keeps dense are free at first."""
    config = workbench.profile.admm_rho
    scope = RankPlan.from_dict(state.plan).scope
    parameters = {
        layer.name: network.get_parameter(f"{layer.name}.weight")
        for layer in workbench.layers
        if not why_dense(layer, scope)
    }
    if config.ramp and not state.training:  # a saved run goes on with the ranks it had
        _renew(workbench, state, parameters, tightness=config.tightness(0))
    return Admm(
        parameters,
        _projections(RankPlan.from_dict(state.plan)),
        rho=1.0,
        config=config,
        select=partial(_reselect, workbench, state, observer),
    )


def _reselect(
    workbench: Workbench,
    state: State,
    observer: Observer,
    lifted: Mapping[str, Tensor],
    epoch: int,
) -> Projections:
    """Choose all ranks anew by the strategy that won, from the spectra of V = W + U."""
    before = RankPlan.from_dict(state.plan)
    tightness = workbench.profile.admm_rho.tightness(epoch)
    renewed = _renew(workbench, state, lifted, tightness=tightness)
    observer.event(
        "ranks.reselected",
        {
            "ranks": {layer.name: list(layer.ranks or ()) for layer in renewed.factorised},
            "changed": renewed.layers != before.layers,
            "tightness": tightness,
            "ratio": renewed.ratio,
        },
    )
    return _projections(renewed)


def _renew(
    workbench: Workbench, state: State, weights: Mapping[str, Tensor], *, tightness: float
) -> RankPlan:
    """Plan for the energies of `weights` and put the plan into the state."""
    inventory = replace(workbench.inventory, latency=latency_table(state))
    layers = [layer for layer in workbench.layers if layer.name in weights]
    plan = renew(
        RankPlan.from_dict(state.plan),
        inventory,
        spectra(weights, layers),
        budgets=eased(inventory, workbench.budgets, tightness),
    )
    state.plan = plan.to_dict()
    return plan


def _projections(plan: RankPlan) -> Projections:
    return {
        layer.name: partial(project, ranks=layer.ranks)
        for layer in plan.factorised
        if layer.ranks is not None
    }


def _findings(constraint: Admm, last: Mapping[str, float]) -> dict[str, object]:
    gap = constraint.gap
    notes = []
    if gap > LARGEST_GOOD_GAP:
        notes.append(
            f"the final ADMM gap is {gap:.2f}: the weights are still far from low rank; train "
            "longer (admm_epochs) or ask for a smaller ratio"
        )
    if constraint.diverging:
        notes.append("ADMM diverges: the gap is above 1 or not a number")
    return {
        "mean_gap": gap,
        "gap_by_layer": constraint.residuals,
        "rho": constraint.rho,
        "diverging": constraint.diverging,
        "last_epoch": {k: v for k, v in last.items() if not k.startswith("gap/")},
        "notes": notes,
    }
