"""What a network costs when so many channels of each group are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from torch import nn

from cstar_core.layers import Layer, count_parameters
from cstar_core.pruning.groups import Coupling, Member

Kept = Mapping[str, int]
"""Channels kept, by the name of their group."""


UNITS = ("parameters", "macs", "bytes")
"""What a budget for pruning can be on."""


@dataclass(frozen=True)
class Part:
    """A module with the facts that its cost depends on; `area` is its output H W, 0 for a norm."""

    member: Member
    taps: int
    area: int
    has_bias: bool
    floating_buffers: int

    def weights(self, kept: Kept) -> int:
        """Elements of the weight."""
        outputs = kept[self.member.outputs]
        if self.member.role in ("norm", "depthwise"):
            return outputs * self.taps
        return outputs * kept[self.member.inputs] * self.member.spread * self.taps

    def parameters(self, kept: Kept) -> int:
        """Learnable parameters, with the bias."""
        return self.weights(kept) + self.has_bias * kept[self.member.outputs]

    def macs(self, kept: Kept) -> int:
        """Multiply-accumulates for one image; none are counted for a norm."""
        return self.area * self.weights(kept)

    def buffers(self, kept: Kept) -> int:
        """Elements of floating buffers, which are the statistics of a norm."""
        return self.floating_buffers * kept[self.member.outputs]


class CostModel:
    """Parameters, MACs and bytes of `network` as functions of the channels kept.

    `layers` (from `describe`) knows at which resolution each layer runs. Bytes are those of all
    tensors of the state dictionary.
    """

    def __init__(self, network: nn.Module, layers: Iterable[Layer], coupled: Coupling) -> None:
        area = {layer.name: layer.output_hw[0] * layer.output_hw[1] for layer in layers}
        self.parts = tuple(_part(network, member, area) for member in coupled.members)
        self.dense: dict[str, int] = {group.name: group.size for group in coupled.groups}
        self._width = next(network.parameters()).element_size()
        stored = sum(tensor.nbytes for tensor in network.state_dict().values())
        self._totals: Mapping[str, int] = {
            "parameters": count_parameters(network),
            "macs": self._sum(Part.macs, self.dense),
            "bytes": stored,
        }

    def total(self, kept: Kept, unit: str) -> int:
        """Cost of the whole network in one of `UNITS`; KeyError for another."""
        return self._totals[unit] - self._variable(self.dense, unit) + self._variable(kept, unit)

    def _variable(self, kept: Kept, unit: str) -> int:
        if unit == "macs":
            return self._sum(Part.macs, kept)
        parameters = self._sum(Part.parameters, kept)
        if unit == "parameters":
            return parameters
        return self._width * (parameters + self._sum(Part.buffers, kept))

    def _sum(self, of: Callable[[Part, Kept], int], kept: Kept) -> int:
        return sum(of(part, kept) for part in self.parts)


def _part(network: nn.Module, member: Member, area: Mapping[str, int]) -> Part:
    module = network.get_submodule(member.name)
    weight = getattr(module, "weight", None)
    per_channel = [buffer for buffer in module.buffers(recurse=False) if buffer.dim() == 1]
    return Part(
        member,
        taps=0 if weight is None else weight[0, 0].numel() if weight.dim() > 2 else 1,
        area=area.get(member.name, 0),
        has_bias=getattr(module, "bias", None) is not None,
        floating_buffers=len(per_channel),
    )
