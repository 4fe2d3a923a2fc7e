"""Spending a budget step by step: the best step of any layer that fits, until none does."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from cstar_core.layers import Layer
from cstar_core.projection import Ranks
from cstar_core.ranks.inventory import Budget, Inventory


@dataclass(frozen=True)
class Step:
    """One step of one layer: the ranks after it (None: dense), what it costs and what it buys.

    `costs` are in the units of the budgets, one each.
    """

    ranks: Ranks | None
    costs: tuple[int, ...]
    gain: float


Steps = Callable[[str, Ranks | None], Sequence[Step]]
"""The steps open to a layer at its present ranks."""


def climb(
    inventory: Inventory,
    choices: Mapping[str, Ranks | None],
    budgets: Sequence[Budget],
    steps: Steps,
) -> dict[str, Ranks | None]:
    """Take the step of the largest gain until none fits into all budgets, starting at `choices`.

    A heap with lazy refresh: a layer is looked at again when its own step was taken or no longer
    fits. Ties go to the layer whose name comes first, so that the result is deterministic.
    """
    choices = dict(choices)
    room = [budget.limit - inventory.total(choices, budget.unit) for budget in budgets]
    heap: list[tuple[float, str, Step]] = []
    idle = set(choices)  # layers with nothing on the heap

    def offer(names: Iterable[str]) -> None:
        for name in names:
            fitting = [step for step in steps(name, choices[name]) if _fits(step, room)]
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


def step_costs(
    inventory: Inventory,
    layer: Layer,
    before: Ranks | None,
    after: Ranks | None,
    budgets: Sequence[Budget],
) -> tuple[int, ...]:
    """What going from `before` to `after` adds to the cost, in the unit of each budget."""
    return tuple(
        inventory.cost(layer, after, budget.unit) - inventory.cost(layer, before, budget.unit)
        for budget in budgets
    )


def _fits(step: Step, room: Sequence[int]) -> bool:
    return all(cost <= left for cost, left in zip(step.costs, room, strict=True))
