"""Ranks by energy: steps are taken where they buy the most energy per unit of budget.

The energy is the joint one of `core_energy`, so a step in one mode is worth what the other mode
lets through: energies of single modes starve a mode. A floor below which no rank falls and a cap
on the aspect keep the layers balanced; a dense layer is one more step, to zero error at full cost.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cstar_core.projection import Ranks
from cstar_core.ranks.grid import RankGrid
from cstar_core.ranks.inventory import Budget, Inventory, Unit, layer_cost, price
from cstar_core.ranks.plan import RankPlan, assemble
from cstar_core.ranks.scope import RANK_ONE, Scope, chosen_scope
from cstar_core.ranks.spectra import EnergyTable
from cstar_core.ranks.uniform import meets, rank_grids, uniform_fraction, uniform_ranks

Weighting = Literal["raw", "relative"] | Mapping[str, float]

FLOOR_SHARE = 0.5  # of the uniform fraction
ASPECT_CAP = 4.0


def energy_plan(
    inventory: Inventory,
    tables: Mapping[str, EnergyTable],
    budgets: Sequence[Budget],
    *,
    weighting: Weighting = "relative",
    per: Unit | None = None,
    scope: Scope | None = None,
    multiple: int = 1,
    floor: float = FLOOR_SHARE,
    aspect: float = ASPECT_CAP,
) -> RankPlan:
    """The plan that greedily keeps the most weighted energy, sum_l w_l E_l, within all `budgets`.

    `weighting` is w_l: "raw" 1, "relative" 1 / |W_l|^2, or a weight for each layer name. Gains
    are per share of the budgets, or per `per` if that is given. Every rank starts at `floor` times
    the uniform one, and r_out / O and r_in / I stay within a factor `aspect` of each other.

    Raises `TargetInfeasible` if no ranks meet the budgets, KeyError for a layer without weight.
    """
    scope = chosen_scope(inventory, budgets, scope)
    grids = rank_grids(inventory, scope=scope, multiple=multiple)
    prices = [Budget(per, inventory.dense(per))] if per else list(budgets)
    options = {
        grid.layer.name: _Options(
            grid, tables[grid.layer.name], _weight(weighting, grid, tables), aspect, prices, budgets
        )
        for grid in grids
    }
    choices = _climb(inventory, options, _floors(inventory, grids, budgets, floor), budgets)
    label = weighting if isinstance(weighting, str) else "weighted"
    return assemble(
        inventory,
        tables,
        choices,
        name=f"energy-{label}" + (f"-per-{per}" if per else ""),
        strategy="energy",
        scope=scope,
        budgets=budgets,
        settings={
            "weighting": label,
            "per": per or "",
            "floor": floor,
            "aspect": aspect,
            "multiple": multiple,
        },
    )


@dataclass(frozen=True)
class Step:
    """One step of one layer: the ranks after it (None: dense), what it costs and what it buys."""

    ranks: Ranks | None
    costs: tuple[int, ...]
    gain: float


@dataclass(frozen=True)
class _Options:
    """What one layer may do next, and what that is worth."""

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
            if self.grid.is_smaller(step, self.budgets)
        ]
        steps = [self._step(ranks, step) for step in (*smaller, None)]
        return [step for step in steps if step.gain > 0]

    def _step(self, before: Ranks, after: Ranks | None) -> Step:
        layer = self.grid.layer
        kept = self.weight * (self.table.kept(after) - self.table.kept(before))
        paid = price(layer, after, self.prices) - price(layer, before, self.prices)
        costs = tuple(
            layer_cost(layer, after, budget.unit) - layer_cost(layer, before, budget.unit)
            for budget in self.budgets
        )
        return Step(after, costs, kept / paid if paid > 0 else kept * float("inf"))


def _climb(
    inventory: Inventory,
    options: Mapping[str, _Options],
    choices: dict[str, Ranks | None],
    budgets: Sequence[Budget],
) -> dict[str, Ranks | None]:
    """Take the best step of any layer until none fits; `choices` are where it starts."""
    choices = dict(choices)
    room = _room(inventory, choices, budgets)
    heap: list[tuple[float, str, Step]] = []
    idle = set(choices)  # layers with nothing on the heap

    def offer(names: Iterable[str]) -> None:
        for name in names:
            fitting = [step for step in options[name].steps(choices[name]) if _fits(step, room)]
            if fitting:
                best = max(fitting, key=lambda step: step.gain)
                heapq.heappush(heap, (-best.gain, name, best))
                idle.discard(name)

    offer(sorted(idle))
    while heap:
        _, name, step = heapq.heappop(heap)
        idle.add(name)
        if _fits(step, room):  # the room may have shrunk since the step was offered
            choices[name] = step.ranks
            room = [left - cost for left, cost in zip(room, step.costs, strict=True)]
        # A step may lower one of several costs (dense, under a stride): then all look again.
        offer(sorted(idle) if min(step.costs) < 0 else [name])
    return choices


def _fits(step: Step, room: Sequence[int]) -> bool:
    return all(cost <= left for cost, left in zip(step.costs, room, strict=True))


def _room(
    inventory: Inventory, choices: Mapping[str, Ranks | None], budgets: Sequence[Budget]
) -> list[int]:
    """What is left of each budget."""
    return [
        budget.limit
        - inventory.kept(budget.unit)
        - sum(layer_cost(layer, choices.get(layer.name), budget.unit) for layer in inventory.layers)
        for budget in budgets
    ]


def _floors(
    inventory: Inventory, grids: Sequence[RankGrid], budgets: Sequence[Budget], share: float
) -> dict[str, Ranks | None]:
    """Where the climb starts: `share` of the uniform ranks, less if even those do not fit."""
    fraction = share * uniform_fraction(inventory, grids, budgets)
    choices = uniform_ranks(grids, fraction, budgets)
    if meets(inventory, choices, budgets):
        return choices
    return {
        grid.layer.name: RANK_ONE if grid.is_smaller(RANK_ONE, budgets) else None for grid in grids
    }


def _weight(weighting: Weighting, grid: RankGrid, tables: Mapping[str, EnergyTable]) -> float:
    if weighting == "raw":
        return 1.0
    if weighting == "relative":
        total = tables[grid.layer.name].total
        return 1.0 / total if total > 0 else 0.0
    if isinstance(weighting, Mapping):
        return weighting[grid.layer.name]
    raise ValueError(f"unknown weighting {weighting!r}: 'raw', 'relative' or a weight per layer")
