"""A pruned network computes what the dense one does when the dropped channels are read as zero."""

from __future__ import annotations

import copy
import functools
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from cstar_core.architectures import Architecture, build
from cstar_core.errors import InvalidModel
from cstar_core.export import load, write_model
from cstar_core.layers import count_parameters, describe
from cstar_core.pruning import ChannelSelection, GroupPlan, PruningPlan, coupling, prune
from cstar_core.ranks import Budget
from tests.unit.core.pruning.networks import IMAGE, KINDS, network


@functools.cache
def dense(kind: str) -> tuple[nn.Module, PruningPlan]:
    """A network and a plan for it that keeps everything."""
    made = network(kind)
    return made, ChannelSelection(made, describe(made, IMAGE), ()).uniform()


@st.composite
def plans(draw: st.DrawFn) -> tuple[nn.Module, PruningPlan]:
    """Any non-empty choice of channels from every group that may be pruned."""
    made, plan = dense(draw(st.sampled_from(KINDS)))
    prunable = {group.name for group in coupling(made).prunable}

    def chosen(group: GroupPlan) -> GroupPlan:
        every = st.sets(st.sampled_from(group.kept), min_size=1)
        kept = draw(every) if group.name in prunable else group.kept
        return GroupPlan(group.name, group.size, tuple(sorted(kept)), group.reason)

    groups = tuple(chosen(group) for group in plan.groups)
    return made, PruningPlan(**{**vars(plan), "groups": groups})


def reading_zero(made: nn.Module, plan: PruningPlan) -> nn.Module:
    """The dense network whose every reader of a dropped channel has zero weights for it."""
    copied = copy.deepcopy(made)
    groups = {group.name: group for group in plan.groups}
    for member in plan.members:
        if member.role not in ("conv", "linear"):
            continue
        group = groups[member.inputs]
        keeps = torch.zeros(group.size)
        keeps[list(group.kept)] = 1
        weight = copied.get_parameter(f"{member.name}.weight")
        mask = keeps.repeat_interleave(member.spread).view(1, -1, *[1] * (weight.dim() - 2))
        weight.data.mul_(mask)
    return copied


def images(count: int = 2) -> Tensor:
    return torch.rand(count, *IMAGE, generator=torch.Generator().manual_seed(1))


@settings(max_examples=30, deadline=None)
@given(plans())
def test_dropping_channels_is_reading_them_as_zero(case: tuple[nn.Module, PruningPlan]) -> None:
    made, plan = case
    with torch.no_grad():
        expected = reading_zero(made, plan)(images())
        found = prune(made, plan)(images())

    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("kind", KINDS)
def test_keeping_everything_changes_no_bit(kind: str) -> None:
    made, plan = dense(kind)
    pruned = prune(made, plan)

    assert pruned is not made
    for name, tensor in made.state_dict().items():
        assert torch.equal(pruned.state_dict()[name], tensor)


@pytest.mark.parametrize("kind", KINDS)
def test_a_pruned_network_can_be_trained_and_exported(kind: str, tmp_path: Path) -> None:
    made = network(kind)
    half = [Budget("parameters", count_parameters(made) // 2)]
    pruned = prune(made, ChannelSelection(made, describe(made, IMAGE), half).ranked())
    write_model(tmp_path, pruned, input_shape=IMAGE, mean=[0.0] * 3, std=[1.0] * 3, num_classes=10)
    with torch.no_grad():
        assert torch.allclose(load(tmp_path)(images()), pruned(images()), rtol=1e-4, atol=1e-5)

    pruned.train()(images(4)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in pruned.parameters())


def test_a_plan_of_another_width_is_refused() -> None:
    _, plan = dense("option B")
    wider = build(Architecture("resnet18_cifar", {"width": 16}))

    with pytest.raises(InvalidModel, match=r"conv1.*make the plan for this network"):
        prune(wider, plan)


def test_a_plan_of_another_architecture_is_refused() -> None:
    _, plan = dense("option B")

    with pytest.raises(InvalidModel, match="not in the network"):
        prune(network("vgg"), plan)
