"""From the limits a client states to budgets for the planner, and to plans."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from torch import nn

from cstar_core.layers import Layer
from cstar_core.pipeline.task import Limits
from cstar_core.ranks import Budget, Inventory, Proposal, plan_network, time_layers
from cstar_core.ranks.inventory import NANOSECONDS


def budgets_within(limits: Limits, inventory: Inventory) -> tuple[Budget, ...]:
    """The limits as budgets for the whole network; milliseconds become nanoseconds."""
    budgets = []
    if limits.ratio is not None:
        budgets.append(inventory.budget(limits.ratio))
    if limits.max_params is not None:
        budgets.append(Budget("parameters", limits.max_params))
    if limits.max_macs is not None:
        budgets.append(Budget("macs", limits.max_macs))
    if limits.max_bytes is not None:
        budgets.append(Budget("bytes", limits.max_bytes))
    if limits.max_latency_ms is not None:
        budgets.append(Budget("latency", int(NANOSECONDS * limits.max_latency_ms)))
    return tuple(budgets)


def plan_within(
    network: nn.Module,
    layers: Iterable[Layer],
    limits: Limits,
    *,
    multiple: int = 1,
    latency_cache: Path | None = None,
) -> Proposal:
    """Plans for `network` within `limits`, in seconds: nothing is trained, no image is looked at.

    `layers` are what `cstar_core.layers.describe` lists for it, ranks come in multiples of
    `multiple`. A limit on latency times the layers on the device the network is on, unless the
    folder `latency_cache` knows them.

    Raises `TargetInfeasible`, naming the best that can be met, if no ranks are within the limits;
    ValueError if there are no limits.
    """
    layers = list(layers)
    budgets = budgets_within(limits, Inventory.of(network, layers))
    if not budgets:
        raise ValueError("there is nothing to plan for: set at least one limit")
    timed = limits.max_latency_ms is not None
    latency = time_layers(network, layers, cache=latency_cache) if timed else None
    return plan_network(network, layers, budgets, latency=latency, multiple=multiple)
