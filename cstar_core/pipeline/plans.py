"""What phases and reports need of a plan, whatever a method plans: ranks, or channels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import nn

from cstar_core.factorization import restructure
from cstar_core.layers import Layer
from cstar_core.pruning import PruningPlan, check_budgets, prune
from cstar_core.ranks import Budget, Inventory, RankPlan, needed_scope

PlanData = Mapping[str, Any]
"""A plan as `to_dict` describes it, which is how a state keeps it."""


class Plan(Protocol):
    """The totals of a plan: all learnable parameters, MACs for one image, before and after."""

    @property
    def parameters(self) -> int:
        """Learnable parameters of the compressed network."""
        ...

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the compressed network."""
        ...

    @property
    def dense_parameters(self) -> int:
        """Learnable parameters of the dense network."""
        ...

    @property
    def dense_macs(self) -> int:
        """Multiply-accumulates of the dense network."""
        ...

    @property
    def ratio(self) -> float:
        """All learnable parameters before / after."""
        ...

    @property
    def macs_ratio(self) -> float:
        """Multiply-accumulates before / after."""
        ...

    @property
    def convolution_ratio(self) -> float:
        """Parameters of the convolution weights alone, before / after."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """The plan as values that JSON knows."""
        ...


@dataclass(frozen=True)
class PlanKind:
    """How a plan is read back from its data, and how it turns a dense network into a small one.

    `build` returns a network in the structure of the plan, into which trained weights are loaded.
    `check` raises TargetInfeasible or TargetUnsupported for budgets that no plan can meet, as far
    as that shows without weights and without timing anything.
    """

    read: Callable[[PlanData], Plan]
    build: Callable[[nn.Module, PlanData], nn.Module]
    check: Callable[[nn.Module, Sequence[Layer], Sequence[Budget]], None]


def _restructured(network: nn.Module, plan: PlanData) -> nn.Module:
    return restructure(network, RankPlan.from_dict(plan))


def _pruned(network: nn.Module, plan: PlanData) -> nn.Module:
    return prune(network, PruningPlan.from_dict(plan))


def _check_ranks(network: nn.Module, layers: Sequence[Layer], budgets: Sequence[Budget]) -> None:
    timeless = [budget for budget in budgets if budget.unit != "latency"]
    needed_scope(Inventory.of(network, layers), timeless)


RANKS = PlanKind(RankPlan.from_dict, _restructured, _check_ranks)
CHANNELS = PlanKind(PruningPlan.from_dict, _pruned, check_budgets)
