"""The plans worth scoring: reconstruction error alone does not predict accuracy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from cstar_core.layers import Layer
from cstar_core.ranks.energy import Weighting, energy_plan
from cstar_core.ranks.inventory import Budget, Inventory, Unit
from cstar_core.ranks.latency import LatencyTable
from cstar_core.ranks.plan import RankPlan
from cstar_core.ranks.scope import Scope
from cstar_core.ranks.spectra import EnergyTable, spectra
from cstar_core.ranks.uniform import uniform_plan


@dataclass(frozen=True)
class Proposal:
    """Distinct plans that meet the budgets, the uniform one first, and which to take unscored."""

    plans: tuple[RankPlan, ...]

    @property
    def recommended(self) -> RankPlan:
        """The plan that keeps the most energy, as the mean share over all layers.

        A rule for want of images: where there are some, score the plans on them instead.
        """
        return max(self.plans, key=lambda plan: sum(layer.energy_kept for layer in plan.layers))


def plan_network(
    network: nn.Module,
    layers: Iterable[Layer],
    budgets: Sequence[Budget],
    *,
    latency: LatencyTable | None = None,
    tables: Mapping[str, EnergyTable] | None = None,
    weights: Mapping[str, float] | None = None,
    scope: Scope | None = None,
    multiple: int = 1,
) -> Proposal:
    """Choose ranks for `network` under all `budgets` without looking at an image; takes seconds.

    `layers` are what `describe` lists; the other arguments are those of `candidates`.

    Raises `TargetInfeasible`, naming the best that can be met, if no ranks meet the budgets.
    """
    return Proposal(
        tuple(
            candidates(
                network,
                layers,
                budgets,
                latency=latency,
                tables=tables,
                weights=weights,
                scope=scope,
                multiple=multiple,
            )
        )
    )


def candidates(
    network: nn.Module,
    layers: Iterable[Layer],
    budgets: Sequence[Budget],
    *,
    latency: LatencyTable | None = None,
    tables: Mapping[str, EnergyTable] | None = None,
    weights: Mapping[str, float] | None = None,
    scope: Scope | None = None,
    multiple: int = 1,
) -> list[RankPlan]:
    """Distinct plans for `network` under all `budgets`, the uniform one first.

    Then by joint core energy: raw, relative, with the Fisher `weights` of the layers if given,
    and, where budgets are on size alone, relative energy per MAC. The caller scores them on
    held-out training images and keeps the best. `latency` is needed for a budget on latency, and
    puts predicted times into the plans; `tables` saves computing `spectra` again.

    Raises `TargetInfeasible` if no ranks meet the budgets.
    """
    inventory = Inventory.of(network, layers, latency=latency)
    tables = spectra(network, inventory.layers) if tables is None else tables
    plans = [uniform_plan(inventory, tables, budgets, scope=scope, multiple=multiple)]
    for weighting, per in _strategies(budgets, fisher=weights is not None):
        plan = energy_plan(
            inventory,
            tables,
            budgets,
            weighting=weighting,
            weights=weights,
            per=per,
            scope=scope,
            multiple=multiple,
        )
        if all(plan.layers != other.layers for other in plans):
            plans.append(plan)
    return plans


def _strategies(budgets: Sequence[Budget], *, fisher: bool) -> list[tuple[Weighting, Unit | None]]:
    strategies: list[tuple[Weighting, Unit | None]] = [("raw", None), ("relative", None)]
    if fisher:
        strategies.append(("fisher", None))
    if all(budget.unit in ("parameters", "bytes") for budget in budgets):
        strategies.append(("relative", "macs"))
    return strategies
