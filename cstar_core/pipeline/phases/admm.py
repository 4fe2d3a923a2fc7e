"""Phase `admm`: adversarial training that pulls every planned layer towards its low-rank target."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from torch import Tensor, nn

from cstar_core.pipeline.observer import Observer
from cstar_core.pipeline.state import State
from cstar_core.pipeline.training_phase import train
from cstar_core.pipeline.workbench import Workbench
from cstar_core.projection import project
from cstar_core.ranks import EnergyTable, RankPlan, renew, spectra
from cstar_core.training.admm import Admm, Projections, initial_rho

PHASE = "admm"
LARGEST_GOOD_GAP = 0.3


def run(workbench: Workbench, state: State, observer: Observer) -> None:
    """Run ADMM; leaves the dense weights near the low-rank set, the final ranks, and Z."""
    config = workbench.task.profile.admm
    model = workbench.dense_model(state.dense)
    constraint = _constraint(workbench, state, model.network, observer)
    trainer = workbench.trainer(model, config, phase=PHASE, constraint=constraint)
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
    plan = RankPlan.from_dict(state.plan)
    parameters = {
        layer.name: network.get_parameter(f"{layer.name}.weight") for layer in plan.factorised
    }
    return Admm(
        parameters,
        _projections(plan, parameters),
        rho=1.0,
        config=workbench.task.profile.admm_rho,
        select=partial(_reselect, workbench, state, network, observer),
    )


def _reselect(
    workbench: Workbench,
    state: State,
    network: nn.Module,
    observer: Observer,
    lifted: Mapping[str, Tensor],
) -> Projections:
    """Choose all ranks anew by the strategy that won, from the spectra of V = W + U.

    A layer that would now be factorised or left dense unlike before has no dual to go on with:
    the ranks in force are kept then.
    """
    current = RankPlan.from_dict(state.plan)
    tables = _tables(workbench, network, lifted)
    renewed = renew(current, network, workbench.layers, tables)
    same_layers = {layer.name for layer in renewed.factorised} == set(lifted)
    chosen = renewed if same_layers else current
    state.plan = chosen.to_dict()
    observer.event(
        "ranks.reselected",
        {
            "ranks": {layer.name: list(layer.ranks or ()) for layer in chosen.factorised},
            "changed": chosen.layers != current.layers,
            "kept_because": "" if same_layers else "other layers would be factorised",
        },
    )
    return _projections(chosen, lifted)


def _tables(
    workbench: Workbench, network: nn.Module, lifted: Mapping[str, Tensor]
) -> dict[str, EnergyTable]:
    rest = [layer for layer in workbench.layers if layer.name not in lifted]
    pulled = [layer for layer in workbench.layers if layer.name in lifted]
    return spectra(network, rest) | spectra(lifted, pulled)


def _projections(plan: RankPlan, layers: Mapping[str, object]) -> Projections:
    ranks = {layer.name: layer.ranks for layer in plan.factorised if layer.ranks is not None}
    return {name: partial(project, ranks=ranks[name]) for name in layers}


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
