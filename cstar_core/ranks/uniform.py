"""Uniform ranks: one fraction of the largest for all layers, as large as the budgets allow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from cstar_core.projection import Ranks
from cstar_core.ranks.grid import RankGrid
from cstar_core.ranks.inventory import Budget, Inventory, layer_cost
from cstar_core.ranks.plan import RankPlan, assemble
from cstar_core.ranks.scope import Scope, chosen_scope, why_dense
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

    A layer whose ranks would take no less than the dense weight stays dense. `scope` None takes
    the narrowest that suffices. The fraction is in the plan's settings.

    Raises `TargetInfeasible` if no ranks meet the budgets.
    """
    scope = chosen_scope(inventory, budgets, scope)
    grids = rank_grids(inventory, scope=scope, multiple=multiple)
    fraction = uniform_fraction(inventory, grids, budgets)
    return assemble(
        inventory,
        tables,
        uniform_ranks(grids, fraction, budgets),
        name="uniform",
        strategy="uniform",
        scope=scope,
        budgets=budgets,
        settings={"fraction": fraction, "multiple": multiple},
    )


def rank_grids(inventory: Inventory, *, scope: Scope, multiple: int) -> list[RankGrid]:
    """One grid for each layer that may be factorised in `scope`."""
    return [RankGrid(layer, multiple) for layer in inventory.layers if not why_dense(layer, scope)]


def uniform_fraction(
    inventory: Inventory, grids: Iterable[RankGrid], budgets: Sequence[Budget]
) -> float:
    """The largest fraction in [0, 1] at which `uniform_ranks` meets all budgets, by bisection."""
    grids = list(grids)
    low, high = 0.0, 1.0
    if meets(inventory, uniform_ranks(grids, high, budgets), budgets):
        return high
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if meets(inventory, uniform_ranks(grids, middle, budgets), budgets):
            low = middle
        else:
            high = middle
    return low


def uniform_ranks(
    grids: Iterable[RankGrid], fraction: float, budgets: Sequence[Budget]
) -> dict[str, Ranks | None]:
    """Ranks of each layer at `fraction` of its largest; None where dense takes no more."""
    choices: dict[str, Ranks | None] = {}
    for grid in grids:
        ranks = grid.at_fraction(fraction)
        choices[grid.layer.name] = ranks if grid.is_smaller(ranks, budgets) else None
    return choices


def meets(
    inventory: Inventory, choices: Mapping[str, Ranks | None], budgets: Sequence[Budget]
) -> bool:
    """Whether the whole network with these ranks is within all budgets."""
    for budget in budgets:
        layers = sum(
            layer_cost(layer, choices.get(layer.name), budget.unit) for layer in inventory.layers
        )
        if inventory.kept(budget.unit) + layers > budget.limit:
            return False
    return True
