"""What a network costs, layer by layer and whole, and the budgets that are set on it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import nn

from cstar_core.layers import Layer, count_parameters
from cstar_core.projection import Ranks

Unit = Literal["parameters", "macs"]


@dataclass(frozen=True)
class Budget:
    """An upper limit for the whole network: learnable parameters, or multiply-accumulates."""

    unit: Unit
    limit: int

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise ValueError(f"a budget must be at least 1, got {self.limit}")


@dataclass(frozen=True)
class Inventory:
    """The layers of a dense network and `parameters`, its count of all learnable parameters."""

    layers: tuple[Layer, ...]
    parameters: int

    @classmethod
    def of(cls, network: nn.Module, layers: Iterable[Layer]) -> Inventory:
        """The inventory of `network`, whose layers `describe` has listed."""
        return cls(tuple(layers), count_parameters(network))

    def dense(self, unit: Unit) -> int:
        """Cost of the whole network before compression."""
        if unit == "parameters":
            return self.parameters
        return sum(layer.dense_macs for layer in self.layers)

    def kept(self, unit: Unit) -> int:
        """Cost outside the weights of the layers: normalisation, biases, whatever else stays."""
        return self.dense(unit) - sum(layer_cost(layer, None, unit) for layer in self.layers)

    def budget(self, ratio: float, unit: Unit = "parameters") -> Budget:
        """The budget that makes the whole network at least `ratio` times cheaper."""
        return Budget(unit, max(1, int(self.dense(unit) / ratio)))


def layer_cost(layer: Layer, ranks: Ranks | None, unit: Unit) -> int:
    """Cost of the weight of one layer at `ranks`; dense if `ranks` is None."""
    if unit == "parameters":
        return layer.dense_parameters if ranks is None else layer.factorised_parameters(ranks)
    return layer.dense_macs if ranks is None else layer.factorised_macs(ranks)


def price(layer: Layer, ranks: Ranks | None, budgets: Sequence[Budget]) -> float:
    """Share of the budgets a layer takes, summed over the budgets; dense if `ranks` is None."""
    return sum(layer_cost(layer, ranks, budget.unit) / budget.limit for budget in budgets)
