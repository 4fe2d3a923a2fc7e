"""The result of rank selection: what happens to every layer, and what the network then costs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from cstar_core.layers import Kind, Layer
from cstar_core.projection import Ranks
from cstar_core.ranks.inventory import Budget, Inventory, layer_cost
from cstar_core.ranks.scope import Scope, why_dense
from cstar_core.ranks.spectra import EnergyTable

Method = Literal["tucker2", "svd", "dense"]


@dataclass(frozen=True)
class LayerPlan:
    """One layer: how it is factorised, what its weight costs then, the share of |W|^2 kept.

    `ranks` is None and `reason` says why where `method` is "dense". Biases are not counted here.
    """

    name: str
    kind: Kind
    method: Method
    ranks: Ranks | None
    energy_kept: float
    parameters: int
    macs: int
    dense_parameters: int
    dense_macs: int
    reason: str = ""


@dataclass(frozen=True)
class RankPlan:
    """Ranks for a whole network, with its totals: all learnable parameters, MACs for one image."""

    name: str
    strategy: str
    scope: Scope
    layers: tuple[LayerPlan, ...]
    parameters: int
    macs: int
    dense_parameters: int
    dense_macs: int
    budgets: tuple[Budget, ...] = ()
    settings: Mapping[str, str | int | float] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """All learnable parameters before / after."""
        return self.dense_parameters / self.parameters

    @property
    def macs_ratio(self) -> float:
        """Multiply-accumulates before / after."""
        return self.dense_macs / self.macs

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
        """The plan and its ratios as values that JSON knows."""
        ratios = {
            "ratio": self.ratio,
            "macs_ratio": self.macs_ratio,
            "convolution_ratio": self.convolution_ratio,
        }
        layers = [
            asdict(layer) | {"ranks": layer.ranks and list(layer.ranks)} for layer in self.layers
        ]
        return asdict(self) | {"layers": layers, "settings": dict(self.settings)} | ratios

    def to_json(self) -> str:
        """`to_dict` as text."""
        return json.dumps(self.to_dict(), indent=1)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RankPlan:
        """The plan that `to_dict` described; raises KeyError or TypeError for anything else."""
        layers = tuple(
            LayerPlan(**layer | {"ranks": layer["ranks"] and Ranks(*layer["ranks"])})
            for layer in values["layers"]
        )
        budgets = tuple(Budget(**budget) for budget in values["budgets"])
        plain = ("name", "strategy", "scope", "parameters", "macs", "settings")
        dense = ("dense_parameters", "dense_macs")
        same = {key: values[key] for key in (*plain, *dense)}
        return cls(layers=layers, budgets=budgets, **same)

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
) -> RankPlan:
    """The plan in which each layer has the ranks of `choices`; a layer it lacks stays dense."""
    layers = tuple(
        _layer_plan(layer, choices.get(layer.name), tables, scope) for layer in inventory.layers
    )
    return RankPlan(
        name=name,
        strategy=strategy,
        scope=scope,
        layers=layers,
        parameters=inventory.kept("parameters") + sum(layer.parameters for layer in layers),
        macs=inventory.kept("macs") + sum(layer.macs for layer in layers),
        dense_parameters=inventory.dense("parameters"),
        dense_macs=inventory.dense("macs"),
        budgets=tuple(budgets),
        settings=dict(settings),
    )


def _layer_plan(
    layer: Layer, ranks: Ranks | None, tables: Mapping[str, EnergyTable], scope: Scope
) -> LayerPlan:
    reason = why_dense(layer, scope) or "the budget leaves room to keep it dense"
    factorised: Method = "tucker2" if layer.kind == "conv" else "svd"
    return LayerPlan(
        name=layer.name,
        kind=layer.kind,
        method="dense" if ranks is None else factorised,
        ranks=ranks,
        energy_kept=1.0 if ranks is None else tables[layer.name].relative(ranks),
        parameters=layer_cost(layer, ranks, "parameters"),
        macs=layer_cost(layer, ranks, "macs"),
        dense_parameters=layer.dense_parameters,
        dense_macs=layer.dense_macs,
        reason=reason if ranks is None else "",
    )
