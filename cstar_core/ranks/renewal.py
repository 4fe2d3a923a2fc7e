"""A plan made anew by its own strategy: the same rules, other weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import nn

from cstar_core.layers import Layer
from cstar_core.ranks.energy import energy_plan
from cstar_core.ranks.inventory import Inventory
from cstar_core.ranks.plan import RankPlan
from cstar_core.ranks.spectra import EnergyTable
from cstar_core.ranks.uniform import uniform_plan


def renew(
    plan: RankPlan,
    network: nn.Module,
    layers: Iterable[Layer],
    tables: Mapping[str, EnergyTable],
) -> RankPlan:
    """The plan of the same strategy, budgets and scope for the energies in `tables`.

    Raises ValueError for a plan by weights of the caller, which it does not hold.
    """
    inventory = Inventory.of(network, layers)
    multiple = int(plan.settings["multiple"])
    if plan.strategy == "uniform":
        return uniform_plan(inventory, tables, plan.budgets, scope=plan.scope, multiple=multiple)
    weighting, per = plan.settings["weighting"], plan.settings["per"]
    if weighting not in ("raw", "relative"):
        raise ValueError(f"a plan by the weights {weighting!r} cannot be renewed without them")
    return energy_plan(
        inventory,
        tables,
        plan.budgets,
        weighting="raw" if weighting == "raw" else "relative",
        per=None if not per else "macs" if per == "macs" else "parameters",
        scope=plan.scope,
        multiple=multiple,
    )
