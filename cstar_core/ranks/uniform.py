"""Uniform ranks: one fraction of the largest for all layers, as large as the budgets allow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from cstar_core.projection import Ranks
from cstar_core.ranks.climb import Step, climb, step_costs
from cstar_core.ranks.feasibility import chosen_scope, leanest
from cstar_core.ranks.grid import ASPECT_CAP, RankGrid
from cstar_core.ranks.inventory import Budget, Inventory
from cstar_core.ranks.plan import RankPlan, assemble
from cstar_core.ranks.scope import Scope, why_dense
from cstar_core.ranks.spectra import EnergyTable

BISECTIONS = 40  # well below the width of one rank


def uniform_plan(
    inventory: Inventory,
    tables: Mapping[str, EnergyTable],
    budgets: Sequence[Budget],
    *,
    scope: Scope | None = None,
    multiple: int = 1,
) -> RankPlan:
    """The plan with the largest common rank fraction that meets all `budgets`.

    A layer whose ranks would take no less than the dense weight stays dense. What rounding leaves
    of the budgets is spent one rank step at a time, on the layer of the smallest fraction first.
    `scope` None takes the narrowest that suffices. The fraction is in the plan's settings.

    Raises `TargetInfeasible` if no ranks meet the budgets.
    """
    scope = chosen_scope(inventory, budgets, scope)
    grids = rank_grids(inventory, scope=scope, multiple=multiple)
    common = Uniform(inventory, grids, budgets, scope)
    fraction = common.largest_fraction()
    by_name = {grid.layer.name: grid for grid in grids}
    return assemble(
        inventory,
        tables,
        climb(inventory, common.at(fraction), budgets, partial(_steps, common, by_name)),
        name="uniform",
        strategy="uniform",
        scope=scope,
        budgets=budgets,
        settings={"fraction": fraction, "multiple": multiple},
    )


def rank_grids(inventory: Inventory, *, scope: Scope, multiple: int) -> list[RankGrid]:
    """One grid for each layer that may be factorised in `scope`."""
    return [RankGrid(layer, multiple) for layer in inventory.layers if not why_dense(layer, scope)]


class Uniform:
    """One fraction for all layers: the ranks it means, and the largest that meets the budgets."""

    def __init__(
        self,
        inventory: Inventory,
        grids: Sequence[RankGrid],
        budgets: Sequence[Budget],
        scope: Scope,
    ) -> None:
        self.inventory, self.grids, self.budgets = inventory, grids, budgets
        self.leanest = leanest(inventory, budgets, scope) or {}

    def at(self, fraction: float) -> dict[str, Ranks | None]:
        """Ranks of each layer at `fraction` of its largest; None where dense takes no more.

        Where dense takes more of one budget and less of another, the layer is what it is in the
        leanest choice, so that a fraction of zero meets the budgets.
        """
        return {grid.layer.name: self._at(grid, fraction) for grid in self.grids}

    def largest_fraction(self) -> float:
        """The largest fraction in [0, 1] found by bisection at which all budgets are met."""
        low, high = 0.0, 1.0
        if self.inventory.meets(self.at(high), self.budgets):
            return high
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            if self.inventory.meets(self.at(middle), self.budgets):
                low = middle
            else:
                high = middle
        return low

    def _at(self, grid: RankGrid, fraction: float) -> Ranks | None:
        ranks = grid.at_fraction(fraction)
        added = step_costs(self.inventory, grid.layer, ranks, None, self.budgets)
        if max(added) <= 0:
            return None
        if min(added) >= 0:
            return ranks
        return ranks if self.leanest[grid.layer.name] else None


def _steps(
    common: Uniform, grids: Mapping[str, RankGrid], name: str, ranks: Ranks | None
) -> list[Step]:
    """Steps up from `ranks`, worth the more the smaller the layer's fraction is."""
    if ranks is None:
        return []
    inventory, budgets, grid = common.inventory, common.budgets, grids[name]
    smaller = [
        step
        for step in grid.neighbours(ranks, aspect=ASPECT_CAP)
        if inventory.pays(grid.layer, step, budgets)
    ]
    return [
        Step(
            after,
            step_costs(inventory, grid.layer, ranks, after, budgets),
            1 / grid.fraction(ranks),
        )
        for after in (*smaller, None)
    ]
