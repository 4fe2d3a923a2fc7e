"""How far a network can go: the least it can cost, and whether several budgets hold at once.

No cost falls as ranks rise, so a layer at its least is either at rank 1 or dense; dense can be
cheaper in one unit (fewer kernels to start) and dearer in another. With several budgets these
layers make a small knapsack, which is searched along its Pareto front.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cstar_core.errors import TargetInfeasible
from cstar_core.layers import Layer
from cstar_core.projection import Ranks
from cstar_core.ranks.inventory import Budget, Inventory, Unit, unit_limits
from cstar_core.ranks.scope import RANK_ONE, SCOPES, Scope, why_dense

# Layers outside the scope may not eat more of a budget than this, or the rest starves.
LARGEST_SHARE_OUTSIDE = 0.5

FRONT = 2048  # choices followed at once; beyond it, those that leave the most room

Choices = dict[str, Ranks | None]


def minimum(inventory: Inventory, unit: Unit, scope: Scope = "linear") -> int:
    """The least the whole network can cost in `unit`: rank 1 or dense, whichever is less."""
    return inventory.kept(unit) + sum(
        min(inventory.cost(layer, ranks, unit) for ranks in _extremes(layer, scope))
        for layer in inventory.layers
    )


def needed_scope(inventory: Inventory, budgets: Sequence[Budget]) -> Scope:
    """The narrowest scope in which all budgets can be met with room for the layers in it.

    1x1 and linear layers stay dense until they would take more than half of a budget, or the
    budgets cannot be met without them.

    Raises `TargetInfeasible`, naming the best that can be met, if no scope meets the budgets.
    """
    check_feasible(inventory, budgets, SCOPES[-1])
    for scope in SCOPES[:-1]:
        roomy = all(_leaves_room(inventory, budget, scope) for budget in budgets)
        if roomy and leanest(inventory, budgets, scope) is not None:
            return scope
    return SCOPES[-1]


def chosen_scope(inventory: Inventory, budgets: Sequence[Budget], scope: Scope | None) -> Scope:
    """`scope` if the caller named one that can meet the budgets, else the one that is needed."""
    if scope is None:
        return needed_scope(inventory, budgets)
    check_feasible(inventory, budgets, scope)
    return scope


def check_feasible(inventory: Inventory, budgets: Sequence[Budget], scope: Scope) -> None:
    """Raise `TargetInfeasible` if `scope` cannot meet a budget, or not all of them at once."""
    limits = unit_limits(budgets)
    for unit, limit in limits.items():
        best = minimum(inventory, unit, scope)
        if best > limit:
            raise TargetInfeasible(_alone(inventory, unit, limit, best), unit=unit, best=best)
    if leanest(inventory, budgets, scope) is None:
        raise _not_together(inventory, limits, scope)


def leanest(inventory: Inventory, budgets: Sequence[Budget], scope: Scope) -> Choices | None:
    """Rank 1 or dense for every layer in `scope` such that all budgets hold; None if nothing does.

    Where one of the two is no dearer in any unit it is taken; what else is open is searched.
    """
    search = _Search.of(inventory, unit_limits(budgets), scope)
    return search.choices(search.by_price()) or search.choices(search.front(search.room))


@dataclass(frozen=True)
class _Search:
    """The layers for which neither rank 1 nor dense is the cheaper one in every unit.

    `base` are the choices already made, `room` (units,) what they and the cheaper half of the
    others leave of each limit, `extra` (layers, 2, units) what rank 1 and dense cost above that.
    """

    base: Choices
    open: tuple[str, ...]
    room: NDArray[np.int64]
    extra: NDArray[np.int64]

    @classmethod
    def of(cls, inventory: Inventory, limits: Mapping[Unit, int], scope: Scope) -> _Search:
        base: Choices = {}
        extras: dict[str, NDArray[np.int64]] = {}
        room = np.array([limit - inventory.kept(unit) for unit, limit in limits.items()])
        for layer in inventory.layers:
            costs = np.array(
                [
                    [inventory.cost(layer, ranks, unit) for unit in limits]
                    for ranks in _extremes(layer, scope)
                ]
            )
            room -= costs.min(axis=0)
            extra = costs - costs.min(axis=0)
            if why_dense(layer, scope):
                continue
            if extra.any(axis=1).all():
                extras[layer.name] = extra
            else:
                base[layer.name] = RANK_ONE if extra[1].any() else None
        stacked = np.array(list(extras.values())).reshape(len(extras), 2, len(limits))
        return cls(base, tuple(extras), room, stacked)

    def front(self, room: NDArray[np.int64]) -> NDArray[np.int64]:
        """Choices within `room` that no other beats in every unit: rows (bits..., costs...)."""
        rows = np.zeros((1, self.extra.shape[2]), dtype=np.int64)
        for number, extra in enumerate(self.extra):
            bits = [np.full((len(rows), 1), dense) for dense in (0, 1)]
            rows = np.concatenate(
                [
                    np.hstack([rows[:, :number], bit, rows[:, number:] + cost])
                    for bit, cost in zip(bits, extra, strict=True)
                ]
            )
            rows = _undominated(rows, number + 1, room)
        return rows[(rows[:, len(self.extra) :] <= room).all(axis=1)]

    def by_price(self) -> NDArray[np.int64]:
        """The row of `front` with the least share of the room for each layer, if it is within."""
        prices = (self.extra / np.maximum(self.room, 1)).sum(axis=2)
        bits = prices.argmin(axis=1)
        costs = self.extra[np.arange(len(bits)), bits].sum(axis=0)
        return np.hstack([bits, costs])[None][: int((costs <= self.room).all())]

    def choices(self, front: NDArray[np.int64]) -> Choices | None:
        """The choices of the first row, None if there is none."""
        if not len(front):
            return None
        bits = front[0, : len(self.open)]
        return self.base | {
            name: None if bit else RANK_ONE for name, bit in zip(self.open, bits, strict=True)
        }


def _undominated(
    rows: NDArray[np.int64], first_cost: int, room: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Rows within `room` whose costs no other row undercuts in all units, least used first."""
    rows = rows[(rows[:, first_cost:] <= room).all(axis=1)]
    used = (rows[:, first_cost:] / np.maximum(room, 1)).sum(axis=1)
    rows = rows[np.argsort(used, kind="stable")]
    kept: list[int] = []
    costs = np.empty((min(FRONT, len(rows)), rows.shape[1] - first_cost), dtype=np.int64)
    for index, cost in enumerate(rows[:, first_cost:]):
        if len(kept) < FRONT and not (costs[: len(kept)] <= cost).all(axis=1).any():
            costs[len(kept)] = cost
            kept.append(index)
    return rows[kept]


def _extremes(layer: Layer, scope: Scope) -> tuple[Ranks | None, Ranks | None]:
    """The ranks between which all costs of the layer lie: rank 1 and dense, or dense alone."""
    return (None, None) if why_dense(layer, scope) else (RANK_ONE, None)


def _leaves_room(inventory: Inventory, budget: Budget, scope: Scope) -> bool:
    outside = sum(
        inventory.cost(layer, None, budget.unit)
        for layer in inventory.layers
        if why_dense(layer, scope) and not why_dense(layer, SCOPES[-1])
    )
    return outside <= LARGEST_SHARE_OUTSIDE * budget.limit


def _alone(inventory: Inventory, unit: Unit, limit: int, best: int) -> str:
    """Why one budget is out of reach, and what to ask for."""
    least = "with every rank at 1" if unit != "latency" else "with whatever is fastest"
    # Rounded down, so that asking for the ratio named is sure to be granted.
    ratio = int(10 * inventory.dense(unit) / best) / 10
    ask = f"a ratio of {ratio:g} or less" if unit != "latency" else f"{amount(best, unit)} or more"
    return (
        f"a budget of {amount(limit, unit)} cannot be met: {least} this network has "
        f"{amount(best, unit)}; ask for {ask}"
    )


def _not_together(
    inventory: Inventory, limits: Mapping[Unit, int], scope: Scope
) -> TargetInfeasible:
    """What to raise for budgets of which each can be met but not all: the nearest way out."""
    search = _Search.of(inventory, limits, scope)
    ways = []
    for column, (unit, limit) in enumerate(limits.items()):
        room = search.room.copy()
        room[column] = np.iinfo(np.int64).max
        front = search.front(room)
        if not len(front):  # the others alone cannot be met together: theirs is the way out
            others = {other: value for other, value in limits.items() if other != unit}
            return _not_together(inventory, others, scope)
        least = limit - int(search.room[column]) + int(front[:, len(search.open) + column].min())
        ways.append((least / limit, unit, least))
    _, unit, best = min(ways)
    rest = " and ".join(amount(limit, other) for other, limit in limits.items() if other != unit)
    return TargetInfeasible(
        f"the budgets can each be met but not together: within {rest} this network needs at "
        f"least {amount(best, unit)}; ask for that or more, or relax the others",
        unit=unit,
        best=best,
    )


def amount(value: int, unit: Unit) -> str:
    """A cost in words; a latency in milliseconds, rounded up so that asking for it suffices."""
    if unit == "latency":
        return f"{math.ceil(value / 1000) / 1000:.3f} ms"
    return f"{value:,} {unit}"
