"""A plan made anew by its own strategy: the same rules, other weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from cstar_core.ranks.energy import Weighting, energy_plan
from cstar_core.ranks.inventory import Budget, Inventory, Unit
from cstar_core.ranks.plan import RankPlan
from cstar_core.ranks.spectra import EnergyTable
from cstar_core.ranks.uniform import uniform_plan


def renew(
    plan: RankPlan,
    inventory: Inventory,
    tables: Mapping[str, EnergyTable],
    *,
    budgets: Sequence[Budget] | None = None,
) -> RankPlan:
    """The plan of the same strategy, scope and settings for the energies in `tables`.

    `budgets` replaces those of the plan. Fisher weights are those the plan holds.

    Raises `TargetInfeasible` if no ranks meet the budgets.
    """
    budgets = plan.budgets if budgets is None else budgets
    multiple = int(plan.settings["multiple"])
    if plan.strategy == "uniform":
        return uniform_plan(inventory, tables, budgets, scope=plan.scope, multiple=multiple)
    return energy_plan(
        inventory,
        tables,
        budgets,
        weighting=cast(Weighting, plan.settings["weighting"]),
        weights=plan.weights,
        per=cast(Unit, plan.settings["per"]) or None,
        scope=plan.scope,
        multiple=multiple,
        floor=float(plan.settings["floor"]),
        aspect=float(plan.settings["aspect"]),
    )


def eased(inventory: Inventory, budgets: Sequence[Budget], tightness: float) -> tuple[Budget, ...]:
    """The budgets `tightness` of the way from dense to themselves, on a logarithmic scale.

    At 1 they are `budgets` exactly; no limit is ever below its own.
    """
    if tightness >= 1:
        return tuple(budgets)
    return tuple(_eased(budget, inventory.dense(budget.unit), tightness) for budget in budgets)


def _eased(budget: Budget, dense: int, tightness: float) -> Budget:
    limit = dense * (budget.limit / dense) ** tightness
    return Budget(budget.unit, max(budget.limit, round(limit)))
