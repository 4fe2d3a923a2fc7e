"""Ranks by energy: steps are taken where they buy the most energy per unit of budget.

The energy is the joint one of `core_energy`, so a step in one mode is worth what the other mode
lets through: energies of single modes starve a mode. A floor below which no rank falls and a cap
on the aspect keep the layers balanced; a dense layer is one more step, to zero error at full cost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from cstar_core.projection import Ranks
from cstar_core.ranks.climb import Step, climb, step_costs
from cstar_core.ranks.feasibility import chosen_scope
from cstar_core.ranks.grid import ASPECT_CAP, RankGrid
from cstar_core.ranks.inventory import Budget, Inventory, Unit
from cstar_core.ranks.plan import RankPlan, assemble
from cstar_core.ranks.scope import Scope
from cstar_core.ranks.spectra import EnergyTable
from cstar_core.ranks.uniform import Uniform, rank_grids

Weighting = Literal["raw", "relative", "fisher"]

FLOOR_SHARE = 0.5  # of the uniform fraction


def energy_plan(
    inventory: Inventory,
    tables: Mapping[str, EnergyTable],
    budgets: Sequence[Budget],
    *,
    weighting: Weighting = "relative",
    weights: Mapping[str, float] | None = None,
    per: Unit | None = None,
    scope: Scope | None = None,
    multiple: int = 1,
    floor: float = FLOOR_SHARE,
    aspect: float = ASPECT_CAP,
) -> RankPlan:
    """The plan that greedily keeps the most weighted energy, sum_l w_l E_l, within all `budgets`.

    `weighting` is w_l: "raw" 1, "relative" 1 / |W_l|^2, "fisher" the entry of `weights`, which the
    plan then holds. Gains are per share of the budgets, or per `per` if that is given. Every rank
    starts at `floor` times the uniform one, and r_out / O and r_in / I stay within a factor
    `aspect` of each other.

    Raises `TargetInfeasible` if no ranks meet the budgets, ValueError for an unknown weighting,
    KeyError for a layer without a weight.
    """
    scope = chosen_scope(inventory, budgets, scope)
    grids = rank_grids(inventory, scope=scope, multiple=multiple)
    weights = dict(weights or {}) if weighting == "fisher" else {}
    worth = _worth(weighting, grids, tables, weights)
    prices = [Budget(per, inventory.dense(per))] if per else list(budgets)
    options = {
        grid.layer.name: _Options(
            inventory,
            grid,
            tables[grid.layer.name],
            worth[grid.layer.name],
            aspect,
            prices,
            budgets,
        )
        for grid in grids
    }
    common = Uniform(inventory, grids, budgets, scope)
    start = _floors(common, floor)
    return assemble(
        inventory,
        tables,
        climb(inventory, start, budgets, lambda name, ranks: options[name].steps(ranks)),
        name=f"energy-{weighting}" + (f"-per-{per}" if per else ""),
        strategy="energy",
        scope=scope,
        budgets=budgets,
        settings={
            "weighting": weighting,
            "per": per or "",
            "floor": floor,
            "aspect": aspect,
            "multiple": multiple,
        },
        weights=weights,
    )


@dataclass(frozen=True)
class _Options:
    """What one layer may do next, and what that is worth."""

    inventory: Inventory
    grid: RankGrid
    table: EnergyTable
    weight: float
    aspect: float
    prices: Sequence[Budget]
    budgets: Sequence[Budget]

    def steps(self, ranks: Ranks | None) -> list[Step]:
        """All steps up from `ranks` that keep more energy; none from dense."""
        if ranks is None:
            return []
        smaller = [
            step
            for step in self.grid.neighbours(ranks, aspect=self.aspect)
            if self.inventory.pays(self.grid.layer, step, self.budgets)
        ]
        steps = [self._step(ranks, step) for step in (*smaller, None)]
        return [step for step in steps if step.gain > 0]

    def _step(self, before: Ranks, after: Ranks | None) -> Step:
        layer, price = self.grid.layer, self.inventory.price
        kept = self.weight * (self.table.kept(after) - self.table.kept(before))
        paid = price(layer, after, self.prices) - price(layer, before, self.prices)
        costs = step_costs(self.inventory, layer, before, after, self.budgets)
        return Step(after, costs, kept / paid if paid > 0 else kept * float("inf"))


def _floors(common: Uniform, share: float) -> dict[str, Ranks | None]:
    """Where the climb starts: `share` of the uniform ranks, the leanest if those do not fit."""
    choices = common.at(share * common.largest_fraction())
    return choices if common.inventory.meets(choices, common.budgets) else common.leanest


def _worth(
    weighting: Weighting,
    grids: Sequence[RankGrid],
    tables: Mapping[str, EnergyTable],
    weights: Mapping[str, float],
) -> dict[str, float]:
    """w_l of each layer."""
    names = [grid.layer.name for grid in grids]
    match weighting:
        case "raw":
            return dict.fromkeys(names, 1.0)
        case "relative":
            totals = {name: tables[name].total for name in names}
            return {name: 1 / total if total > 0 else 0.0 for name, total in totals.items()}
        case "fisher":
            return {name: weights[name] for name in names}
    raise ValueError(f"unknown weighting {weighting!r}: use one of {get_args(Weighting)}")
