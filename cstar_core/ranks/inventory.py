"""What a network costs, layer by layer and whole, and the budgets that are set on it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from cstar_core.layers import Layer, count_parameters
from cstar_core.projection import Ranks
from cstar_core.ranks.latency import LatencyTable

Unit = Literal["parameters", "macs", "bytes", "latency"]

FLOAT_BYTES = 4  # exported weights are float32
NANOSECONDS = 1_000_000  # per millisecond


@dataclass(frozen=True)
class Budget:
    """An upper limit for the whole network, in one unit.

    "parameters" counts every learnable one, "macs" the multiply-accumulates for one image, "bytes"
    the tensors of `model.safetensors`, "latency" the nanoseconds for one image.
    """

    unit: Unit
    limit: int

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise ValueError(f"a budget must be at least 1, got {self.limit}")


@dataclass(frozen=True)
class Inventory:
    """The layers of a dense network and what the whole of it costs.

    `parameters` counts all learnable parameters, `other_bytes` what the state dictionary holds
    besides them: running statistics (float32) and their counters (int64). `latency` is needed for
    costs in nanoseconds only.
    """

    layers: tuple[Layer, ...]
    parameters: int
    other_bytes: int = 0
    latency: LatencyTable | None = None

    @classmethod
    def of(
        cls, network: nn.Module, layers: Iterable[Layer], *, latency: LatencyTable | None = None
    ) -> Inventory:
        """The inventory of `network` (float32), whose layers `describe` has listed."""
        stored = sum(tensor.numel() * tensor.element_size() for tensor in _stored(network))
        parameters = count_parameters(network)
        return cls(tuple(layers), parameters, stored - FLOAT_BYTES * parameters, latency)

    def cost(self, layer: Layer, ranks: Ranks | None, unit: Unit) -> int:
        """Cost of the weight of one layer at `ranks`; dense if `ranks` is None.

        Raises ValueError for a latency without a table.
        """
        match unit:
            case "parameters":
                return _parameters(layer, ranks)
            case "bytes":
                return FLOAT_BYTES * _parameters(layer, ranks)
            case "macs":
                return layer.dense_macs if ranks is None else layer.factorised_macs(ranks)
            case "latency":
                return self._timed.layers[layer.name].at(ranks)

    def price(self, layer: Layer, ranks: Ranks | None, budgets: Iterable[Budget]) -> float:
        """Share of the budgets a layer takes, summed over the budgets; dense if None."""
        return sum(self.cost(layer, ranks, budget.unit) / budget.limit for budget in budgets)

    def pays(self, layer: Layer, ranks: Ranks, budgets: Iterable[Budget]) -> bool:
        """Whether the layer takes less of some budget at `ranks` than dense."""
        return any(
            self.cost(layer, ranks, budget.unit) < self.cost(layer, None, budget.unit)
            for budget in budgets
        )

    def dense(self, unit: Unit) -> int:
        """Cost of the whole network before compression."""
        return self.total({}, unit)

    def kept(self, unit: Unit) -> int:
        """Cost outside the weights of the layers: normalisation, biases, whatever else stays."""
        weights = sum(layer.dense_parameters for layer in self.layers)
        match unit:
            case "parameters":
                return self.parameters - weights
            case "bytes":
                return FLOAT_BYTES * (self.parameters - weights) + self.other_bytes
            case "macs":
                return 0
            case "latency":
                return self._timed.kept

    def total(self, choices: Mapping[str, Ranks | None], unit: Unit) -> int:
        """Cost of the whole network with these ranks; a layer not among them is dense."""
        return self.kept(unit) + sum(
            self.cost(layer, choices.get(layer.name), unit) for layer in self.layers
        )

    def meets(self, choices: Mapping[str, Ranks | None], budgets: Iterable[Budget]) -> bool:
        """Whether the whole network with these ranks is within all budgets."""
        return all(self.total(choices, budget.unit) <= budget.limit for budget in budgets)

    def budget(self, ratio: float, unit: Unit = "parameters") -> Budget:
        """The budget that makes the whole network at least `ratio` times cheaper."""
        return Budget(unit, max(1, int(self.dense(unit) / ratio)))

    @property
    def _timed(self) -> LatencyTable:
        if self.latency is None:
            raise ValueError("a latency needs a table; make one with ranks.time_layers")
        return self.latency


def unit_limits(budgets: Sequence[Budget]) -> dict[Unit, int]:
    """The tightest limit in each unit."""
    limits: dict[Unit, int] = {}
    for budget in budgets:
        limits[budget.unit] = min(budget.limit, limits.get(budget.unit, budget.limit))
    return limits


def _parameters(layer: Layer, ranks: Ranks | None) -> int:
    return layer.dense_parameters if ranks is None else layer.factorised_parameters(ranks)


def _stored(network: nn.Module) -> Iterable[Tensor]:
    tensors: Iterable[Tensor] = network.state_dict().values()
    return tensors
