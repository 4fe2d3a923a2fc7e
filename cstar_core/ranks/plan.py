"""The result of rank selection: what happens to every layer, and what the network then costs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from cstar_core.layers import Kind, Layer
from cstar_core.projection import Ranks
from cstar_core.ranks.inventory import NANOSECONDS, Budget, Inventory
from cstar_core.ranks.scope import RANK_ONE, Scope, why_dense
from cstar_core.ranks.spectra import EnergyTable

Method = Literal["tucker2", "svd", "dense"]


@dataclass(frozen=True)
class LayerPlan:
    """One layer: how it is factorised, what its weight costs then, the share of |W|^2 kept.

    `ranks` is None and `reason` says why where `method` is "dense". Biases are not counted here.
    Latencies are nanoseconds for one image, None where no table was at hand. `shape` is that of
    the dense weight, (O, I / groups, kh, kw).
    """

    name: str
    kind: Kind
    method: Method
    ranks: Ranks | None
    energy_kept: float
    parameters: int
    macs: int
    bytes: int
    dense_parameters: int
    dense_macs: int
    dense_bytes: int
    latency_ns: int | None = None
    dense_latency_ns: int | None = None
    reason: str = ""
    shape: tuple[int, ...] = ()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LayerPlan:
        """The plan of a layer that `to_dict` described."""
        ranks = values["ranks"] and Ranks(*values["ranks"])
        return cls(**{**values, "ranks": ranks, "shape": tuple(values.get("shape", ()))})

    def to_dict(self) -> dict[str, Any]:
        """The plan of a layer as values that JSON knows."""
        ranks = self.ranks and list(self.ranks)
        return asdict(self) | {"ranks": ranks, "shape": list(self.shape)}


@dataclass(frozen=True)
class RankPlan:
    """Ranks for a whole network, with its totals.

    `parameters` are all learnable ones, `macs` for one image, `bytes` those of the tensors in
    `model.safetensors`, `latency_ns` the time predicted for one image where a table was at hand.
    `weights` are those of the strategy, by layer, where it has any.
    """

    name: str
    strategy: str
    scope: Scope
    layers: tuple[LayerPlan, ...]
    parameters: int
    macs: int
    bytes: int
    dense_parameters: int
    dense_macs: int
    dense_bytes: int
    latency_ns: int | None = None
    dense_latency_ns: int | None = None
    budgets: tuple[Budget, ...] = ()
    settings: Mapping[str, str | int | float] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """All learnable parameters before / after."""
        return self.dense_parameters / self.parameters

    @property
    def macs_ratio(self) -> float:
        """Multiply-accumulates before / after."""
        return self.dense_macs / self.macs

    @property
    def bytes_ratio(self) -> float:
        """Bytes of the exported tensors before / after."""
        return self.dense_bytes / self.bytes

    @property
    def latency_ms(self) -> float | None:
        """The predicted time for one image in milliseconds, None if there was no table."""
        return None if self.latency_ns is None else self.latency_ns / NANOSECONDS

    @property
    def convolution_ratio(self) -> float:
        """Parameters of the convolution weights alone, before / after."""
        convolutions = [layer for layer in self.layers if layer.kind != "linear"]
        after = sum(layer.parameters for layer in convolutions)
        return sum(layer.dense_parameters for layer in convolutions) / after if after else 1.0

    @property
    def factorised(self) -> tuple[LayerPlan, ...]:
        """The layers that do not stay dense."""
        return tuple(layer for layer in self.layers if layer.method != "dense")

    def to_dict(self) -> dict[str, Any]:
        """The plan, its ratios and its latency in milliseconds as values that JSON knows."""
        derived = {
            "ratio": self.ratio,
            "macs_ratio": self.macs_ratio,
            "bytes_ratio": self.bytes_ratio,
            "convolution_ratio": self.convolution_ratio,
            "latency_ms": self.latency_ms,
        }
        layers = [layer.to_dict() for layer in self.layers]
        return asdict(self) | {"layers": layers} | derived

    def to_json(self) -> str:
        """`to_dict` as text."""
        return json.dumps(self.to_dict(), indent=1)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RankPlan:
        """The plan that `to_dict` described; raises KeyError or TypeError for anything else."""
        layers = tuple(LayerPlan.from_dict(layer) for layer in values["layers"])
        budgets = tuple(Budget(**budget) for budget in values["budgets"])
        own = {field.name: values[field.name] for field in fields(cls)}
        return cls(**own | {"layers": layers, "budgets": budgets})

    @classmethod
    def from_json(cls, text: str) -> RankPlan:
        """The plan that `to_json` wrote."""
        return cls.from_dict(json.loads(text))


def assemble(
    inventory: Inventory,
    tables: Mapping[str, EnergyTable],
    choices: Mapping[str, Ranks | None],
    *,
    name: str,
    strategy: str,
    scope: Scope,
    budgets: Sequence[Budget],
    settings: Mapping[str, str | int | float],
    weights: Mapping[str, float] | None = None,
) -> RankPlan:
    """The plan in which each layer has the ranks of `choices`; a layer it lacks stays dense."""
    layers = tuple(
        _layer_plan(
            inventory,
            layer,
            choices.get(layer.name),
            tables,
            _reason(inventory, layer, scope, budgets),
        )
        for layer in inventory.layers
    )
    timed = inventory.latency is not None
    return RankPlan(
        name=name,
        strategy=strategy,
        scope=scope,
        layers=layers,
        parameters=inventory.total(choices, "parameters"),
        macs=inventory.total(choices, "macs"),
        bytes=inventory.total(choices, "bytes"),
        dense_parameters=inventory.dense("parameters"),
        dense_macs=inventory.dense("macs"),
        dense_bytes=inventory.dense("bytes"),
        latency_ns=inventory.total(choices, "latency") if timed else None,
        dense_latency_ns=inventory.dense("latency") if timed else None,
        budgets=tuple(budgets),
        settings=dict(settings),
        weights=dict(weights or {}),
    )


def _layer_plan(
    inventory: Inventory,
    layer: Layer,
    ranks: Ranks | None,
    tables: Mapping[str, EnergyTable],
    reason: str,
) -> LayerPlan:
    factorised: Method = "tucker2" if layer.kind == "conv" else "svd"
    timed = inventory.latency is not None
    return LayerPlan(
        name=layer.name,
        kind=layer.kind,
        method="dense" if ranks is None else factorised,
        ranks=ranks,
        energy_kept=1.0 if ranks is None else tables[layer.name].relative(ranks),
        parameters=inventory.cost(layer, ranks, "parameters"),
        macs=inventory.cost(layer, ranks, "macs"),
        bytes=inventory.cost(layer, ranks, "bytes"),
        dense_parameters=inventory.cost(layer, None, "parameters"),
        dense_macs=inventory.cost(layer, None, "macs"),
        dense_bytes=inventory.cost(layer, None, "bytes"),
        latency_ns=inventory.cost(layer, ranks, "latency") if timed else None,
        dense_latency_ns=inventory.cost(layer, None, "latency") if timed else None,
        reason=reason if ranks is None else "",
        shape=(layer.O, layer.I // layer.groups, *layer.kernel),
    )


def _reason(inventory: Inventory, layer: Layer, scope: Scope, budgets: Sequence[Budget]) -> str:
    """Why this layer would be dense."""
    barred = why_dense(layer, scope)
    if barred or inventory.pays(layer, RANK_ONE, budgets):
        return barred or "the budget leaves room to keep it dense"
    return "factorising it would not make it cheaper, even at rank 1"
