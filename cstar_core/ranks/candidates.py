"""The plans worth scoring: reconstruction error alone does not predict accuracy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from torch import nn

from cstar_core.layers import Layer
from cstar_core.ranks.energy import Weighting, energy_plan
from cstar_core.ranks.inventory import Budget, Inventory, Unit
from cstar_core.ranks.plan import RankPlan
from cstar_core.ranks.scope import Scope
from cstar_core.ranks.spectra import EnergyTable, spectra
from cstar_core.ranks.uniform import uniform_plan


def candidates(
    network: nn.Module,
    layers: Iterable[Layer],
    budgets: Sequence[Budget],
    *,
    tables: Mapping[str, EnergyTable] | None = None,
    weights: Mapping[str, float] | None = None,
    scope: Scope | None = None,
    multiple: int = 1,
) -> list[RankPlan]:
    """Distinct plans for `network` under all `budgets`, the uniform one first.

    Then by joint core energy: raw, relative, by `weights` (for each layer name) if given, and,
    where no budget is on MACs, relative energy per MAC. The caller scores them on held-out
    training images and keeps the best. `tables` saves computing `spectra` again.

    Raises `TargetInfeasible` if no ranks meet the budgets.
    """
    inventory = Inventory.of(network, layers)
    tables = spectra(network, inventory.layers) if tables is None else tables
    plans = [uniform_plan(inventory, tables, budgets, scope=scope, multiple=multiple)]
    for weighting, per in _strategies(budgets, weights):
        plan = energy_plan(
            inventory,
            tables,
            budgets,
            weighting=weighting,
            per=per,
            scope=scope,
            multiple=multiple,
        )
        if all(plan.layers != other.layers for other in plans):
            plans.append(plan)
    return plans


def _strategies(
    budgets: Sequence[Budget], weights: Mapping[str, float] | None
) -> list[tuple[Weighting, Unit | None]]:
    strategies: list[tuple[Weighting, Unit | None]] = [("raw", None), ("relative", None)]
    if weights is not None:
        strategies.append((weights, None))
    if all(budget.unit == "parameters" for budget in budgets):
        strategies.append(("relative", "macs"))
    return strategies
