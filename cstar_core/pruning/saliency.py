"""How much a channel matters: the L1 norm of every weight that would go with it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from cstar_core.pruning.groups import Coupling, Member


def saliency(network: nn.Module, coupled: Coupling) -> dict[str, Tensor]:
    """For each group, one value per channel (C,) in float64 on the CPU, of mean 1.

    The L1 norm of a filter (Li et al., ICLR 2017, section 3.1) is summed over all coupled slices,
    those that make the channel and those that read it, and divided by its mean in the group, so
    that groups of large and of small layers compare (as DepGraph does, Fang et al. 2023).
    """
    sums = {group.name: torch.zeros(group.size, dtype=torch.float64) for group in coupled.groups}
    for member in coupled.members:
        for group, norm in _slices(network.get_submodule(member.name), member).items():
            sums[group] += norm
    return {name: _normalised(values) for name, values in sums.items()}


def _slices(module: nn.Module, member: Member) -> Mapping[str, Tensor]:
    weight = getattr(module, "weight", None)
    if weight is None:  # a norm without learnable scale
        return {}
    size = weight.detach().double().abs().cpu()
    made = size.flatten(1).sum(1) if size.dim() > 1 else size
    if member.role in ("norm", "depthwise"):
        return {member.outputs: made}
    read = size.transpose(0, 1).reshape(-1, member.spread * size[:, 0].numel()).sum(1)
    # A layer whose output is added to its input has both in one group.
    if member.inputs == member.outputs:
        return {member.outputs: made + read}
    return {member.outputs: made, member.inputs: read}


def _normalised(values: Tensor) -> Tensor:
    mean = values.mean()
    return values / mean if mean > 0 else torch.ones_like(values)
