"""The result of channel selection: what every group keeps, and what the network then costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from cstar_core.pruning.groups import Member
from cstar_core.ranks import Budget


@dataclass(frozen=True)
class GroupPlan:
    """`kept` channels (ascending indices) of `size`; `reason` says why none are dropped."""

    name: str
    size: int
    kept: tuple[int, ...]
    reason: str = ""


@dataclass(frozen=True)
class PrunedLayer:
    """One convolution or linear layer: channels before and after, what its weight then costs."""

    name: str
    kind: str
    inputs: int
    outputs: int
    dense_inputs: int
    dense_outputs: int
    parameters: int
    macs: int
    dense_parameters: int
    dense_macs: int


@dataclass(frozen=True)
class PruningPlan:
    """Channels for a whole network, with its totals: all learnable parameters, MACs per image."""

    name: str
    strategy: str
    groups: tuple[GroupPlan, ...]
    members: tuple[Member, ...]
    layers: tuple[PrunedLayer, ...]
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

    def to_dict(self) -> dict[str, Any]:
        """The plan and its ratios as values that JSON knows."""
        ratios = {
            "ratio": self.ratio,
            "macs_ratio": self.macs_ratio,
            "convolution_ratio": self.convolution_ratio,
        }
        groups = [asdict(group) | {"kept": list(group.kept)} for group in self.groups]
        parts = {
            "groups": groups,
            "members": [asdict(member) for member in self.members],
            "layers": [asdict(layer) for layer in self.layers],
            "budgets": [asdict(budget) for budget in self.budgets],
            "settings": dict(self.settings),
        }
        return asdict(self) | parts | ratios

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PruningPlan:
        """The plan that `to_dict` described; raises KeyError or TypeError for anything else."""
        plain = ("name", "strategy", "parameters", "macs", "dense_parameters", "dense_macs")
        return cls(
            groups=tuple(
                GroupPlan(**group | {"kept": tuple(group["kept"])}) for group in values["groups"]
            ),
            members=tuple(Member(**member) for member in values["members"]),
            layers=tuple(PrunedLayer(**layer) for layer in values["layers"]),
            budgets=tuple(Budget(**budget) for budget in values["budgets"]),
            settings=dict(values["settings"]),
            **{key: values[key] for key in plain},
        )
