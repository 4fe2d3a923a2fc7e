"""Taking the dropped channels out of a network."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from cstar_core.errors import InvalidModel
from cstar_core.pruning.groups import Member
from cstar_core.pruning.plan import PruningPlan

SIZES = {
    nn.Conv2d: ("in_channels", "out_channels"),
    nn.Linear: ("in_features", "out_features"),
    nn.BatchNorm2d: ("num_features", "num_features"),
}


def prune(network: nn.Module, plan: PruningPlan) -> nn.Module:
    """A deep copy of `network` in which every layer has only the channels that `plan` keeps.

    It computes what `network` does when the dropped channels are read as zero, up to rounding, and
    consists of the same plain modules. Raises `InvalidModel` if the plan does not fit.
    """
    kept = {group.name: torch.tensor(group.kept) for group in plan.groups}
    sizes = {group.name: group.size for group in plan.groups}
    copied = copy.deepcopy(network)
    for member in plan.members:
        _check_fit(copied, member, sizes)
        _slice(copied.get_submodule(member.name), member, kept)
    return copied


def _slice(module: nn.Module, member: Member, kept: Mapping[str, Tensor]) -> None:
    outputs = kept[member.outputs]
    inputs = _features(kept[member.inputs], member.spread)
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.dim() == 0:  # how many batches a norm has seen
            continue
        cut = tensor.detach().index_select(0, outputs.to(tensor.device))
        if tensor.dim() > 1 and member.role != "depthwise":
            cut = cut.index_select(1, inputs.to(tensor.device))
        parameter = isinstance(tensor, nn.Parameter)
        setattr(module, name, nn.Parameter(cut, tensor.requires_grad) if parameter else cut)
    before, after = SIZES[type(module)]
    setattr(module, before, len(inputs))
    setattr(module, after, len(outputs))
    if isinstance(module, nn.Conv2d) and member.role == "depthwise":
        module.groups = len(outputs)


def _features(channels: Tensor, spread: int) -> Tensor:
    """Indices of the features that a flattened channel of `spread` pixels turns into."""
    return (channels[:, None] * spread + torch.arange(spread)).flatten()


def _check_fit(network: nn.Module, member: Member, sizes: Mapping[str, int]) -> None:
    try:
        module = network.get_submodule(member.name)
        found = tuple(getattr(module, name) for name in SIZES[type(module)])
    except (AttributeError, KeyError) as error:
        raise InvalidModel(f"the plan's layer {member.name!r} is not in the network") from error
    wanted = (sizes[member.inputs] * member.spread, sizes[member.outputs])
    if found != wanted:
        raise InvalidModel(
            f"layer {member.name!r} has {found} channels, the plan was made for {wanted}; make the "
            "plan for this network"
        )
