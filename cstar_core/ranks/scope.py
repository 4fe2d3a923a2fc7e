"""Which layers may be factorised, how far that can go, and why the others stay dense."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from cstar_core.errors import TargetInfeasible
from cstar_core.layers import Layer
from cstar_core.projection import Ranks
from cstar_core.ranks.inventory import Budget, Inventory, Unit, layer_cost

Scope = Literal["conv", "pointwise", "linear"]
"""The widest kind of layer factorised: k > 1 convolutions, then 1x1 too, then linear too."""

SCOPES: tuple[Scope, ...] = get_args(Scope)
RANK_ONE = Ranks(1, 1)

# Layers outside the scope may not eat more of a budget than this, or the rest starves.
LARGEST_SHARE_OUTSIDE = 0.5


def why_dense(layer: Layer, scope: Scope) -> str:
    """Why `layer` is not factorised in this scope, in words; empty if it may be."""
    if layer.is_stem:
        return "the stem stays dense: it is small and everything depends on it"
    if layer.groups > 1:
        return "grouped convolutions stay dense"
    if SCOPES.index(layer.kind) > SCOPES.index(scope):
        what = "1x1 convolutions" if layer.kind == "pointwise" else "linear layers"
        return f"the budget is met without factorising {what}"
    if layer.factorised_parameters(RANK_ONE) >= layer.dense_parameters:
        return "factorising it would not make it smaller, even at rank 1"
    return ""


def minimum(inventory: Inventory, unit: Unit, scope: Scope = "linear") -> int:
    """The least the whole network can cost in `unit`: every rank of every layer in scope at 1."""
    layers = sum(_least(layer, unit, scope) for layer in inventory.layers)
    return inventory.kept(unit) + layers


def needed_scope(inventory: Inventory, budgets: Sequence[Budget]) -> Scope:
    """The narrowest scope in which every budget can be met with room for the layers in it.

    1x1 and linear layers stay dense until they would take more than half of a budget, or the
    budget cannot be met without them.

    Raises `TargetInfeasible`, naming the best that can be met, if no scope meets a budget.
    """
    check_feasible(inventory, budgets, SCOPES[-1])
    for scope in SCOPES[:-1]:
        if all(_suffices(inventory, budget, scope) for budget in budgets):
            return scope
    return SCOPES[-1]


def chosen_scope(inventory: Inventory, budgets: Sequence[Budget], scope: Scope | None) -> Scope:
    """`scope` if the caller named one that can meet the budgets, else the one that is needed."""
    if scope is None:
        return needed_scope(inventory, budgets)
    check_feasible(inventory, budgets, scope)
    return scope


def check_feasible(inventory: Inventory, budgets: Sequence[Budget], scope: Scope) -> None:
    """Raise `TargetInfeasible`, naming the best possible, if `scope` cannot meet a budget."""
    for budget in budgets:
        best = minimum(inventory, budget.unit, scope)
        if best > budget.limit:
            ratio = inventory.dense(budget.unit) / best
            # Rounded down, so that asking for the ratio named is sure to be granted.
            raise TargetInfeasible(
                f"a budget of {budget.limit:,} {budget.unit} cannot be met: with every rank at 1 "
                f"this network has {best:,} {budget.unit}; ask for a ratio of "
                f"{int(ratio * 10) / 10:g} or less",
                unit=budget.unit,
                best=best,
            )


def _least(layer: Layer, unit: Unit, scope: Scope) -> int:
    dense = layer_cost(layer, None, unit)
    return dense if why_dense(layer, scope) else min(dense, layer_cost(layer, RANK_ONE, unit))


def _suffices(inventory: Inventory, budget: Budget, scope: Scope) -> bool:
    outside = sum(
        layer_cost(layer, None, budget.unit)
        for layer in inventory.layers
        if why_dense(layer, scope) and not why_dense(layer, SCOPES[-1])
    )
    if outside > LARGEST_SHARE_OUTSIDE * budget.limit:
        return False
    return minimum(inventory, budget.unit, scope) <= budget.limit
