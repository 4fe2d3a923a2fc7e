"""Budgets are met from below by both candidates, with the strongest channels kept."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from cstar_core.errors import TargetInfeasible, TargetUnsupported
from cstar_core.layers import Layer, count_macs, count_parameters, describe
from cstar_core.pruning import (
    ChannelSelection,
    GroupPlan,
    PruningPlan,
    check_budgets,
    coupling,
    prune,
    saliency,
)
from cstar_core.ranks import Budget, Unit
from tests.unit.core.pruning.networks import IMAGE, KINDS, network

UNITS: tuple[Unit, ...] = ("parameters", "macs", "bytes")


@functools.cache
def subject(kind: str) -> tuple[nn.Module, list[Layer]]:
    made = network(kind)
    return made, describe(made, IMAGE)


def measured(made: nn.Module, unit: Unit) -> int:
    """What the network itself costs, counted from its tensors and its layers."""
    if unit == "macs":
        return count_macs(made, IMAGE)
    if unit == "parameters":
        return count_parameters(made)
    return sum(tensor.nbytes for tensor in made.state_dict().values())


def both(kind: str, budgets: Sequence[Budget]) -> tuple[PruningPlan, PruningPlan]:
    selection = ChannelSelection(*subject(kind), budgets)
    return selection.uniform(), selection.ranked()


budget_sets = st.lists(
    st.tuples(st.sampled_from(UNITS), st.floats(0.2, 1.1)), min_size=1, max_size=3
)


@settings(max_examples=15, deadline=None)
@given(kind=st.sampled_from(KINDS), shares=budget_sets)
def test_every_budget_is_met_by_the_network_itself(
    kind: str, shares: list[tuple[Unit, float]]
) -> None:
    made, _ = subject(kind)
    budgets = [Budget(unit, int(share * measured(made, unit))) for unit, share in shares]
    try:
        plans = both(kind, budgets)
    except TargetInfeasible:
        assume(False)
    for plan in plans:
        pruned = prune(made, plan)
        assert plan.parameters == count_parameters(pruned)
        assert plan.macs == count_macs(pruned, IMAGE)
        assert all(measured(pruned, budget.unit) <= budget.limit for budget in budgets)


@settings(max_examples=6, deadline=None)
@given(kind=st.sampled_from(KINDS), unit=st.sampled_from(UNITS), share=st.floats(0.3, 0.9))
def test_no_single_channel_more_would_fit(kind: str, unit: Unit, share: float) -> None:
    made, _ = subject(kind)
    budget = Budget(unit, int(share * measured(made, unit)))
    try:
        plans = both(kind, [budget])
    except TargetInfeasible:
        assume(False)
    for plan in plans:
        for group in plan.groups:
            if len(group.kept) < group.size:
                assert measured(prune(made, one_more(plan, group)), unit) > budget.limit


def one_more(plan: PruningPlan, grown: GroupPlan) -> PruningPlan:
    """The plan with one dropped channel of a group taken back."""
    extra = next(index for index in range(grown.size) if index not in grown.kept)
    kept = tuple(sorted((*grown.kept, extra)))
    more = GroupPlan(grown.name, grown.size, kept)
    groups = tuple(more if group is grown else group for group in plan.groups)
    return PruningPlan(**{**vars(plan), "groups": groups})


@pytest.mark.parametrize("kind", KINDS)
def test_the_strongest_channels_of_a_group_are_kept(kind: str) -> None:
    made, _ = subject(kind)
    values = saliency(made, coupling(made))
    for plan in both(kind, [Budget("parameters", count_parameters(made) // 2)]):
        for group in plan.groups:
            dropped = [index for index in range(group.size) if index not in group.kept]
            weakest = values[group.name][list(group.kept)].min()
            assert all(values[group.name][index] <= weakest for index in dropped)


def test_the_ranking_is_of_the_whole_network_with_a_floor_for_each_group() -> None:
    made, _ = subject("vgg")
    half = Budget("parameters", count_parameters(made) // 2)
    values = saliency(made, coupling(made))
    uniform, ranked = both("vgg", [half])
    floors = {
        group.name: max(1, int(0.5 * float(uniform.settings["fraction"]) * group.size))
        for group in ranked.groups
    }
    groups = [group for group in ranked.groups if not group.reason]
    assert all(len(group.kept) >= floors[group.name] for group in groups)
    dropped = max(
        values[group.name][index].item()
        for group in groups
        for index in range(group.size)
        if index not in group.kept
    )
    kept_above_floor = [
        values[group.name][list(group.kept)].min().item()
        for group in groups
        if len(group.kept) > floors[group.name]
    ]
    # Only what the last few parameters of the budget were spent on may lie below.
    assert sum(value < dropped for value in kept_above_floor) <= 2


def test_the_uniform_plan_cuts_every_group_alike() -> None:
    made, _ = subject("vgg")
    uniform, _ = both("vgg", [Budget("parameters", count_parameters(made) // 4)])
    shares = [len(group.kept) / group.size for group in uniform.groups if not group.reason]

    assert max(shares) - min(shares) < 2 / 8  # the narrowest group has eight channels


@pytest.mark.parametrize("kind", KINDS)
def test_a_plan_is_the_same_every_time_and_comes_back_from_json(kind: str, tmp_path: Path) -> None:
    made, _ = subject(kind)
    budgets = [Budget("parameters", count_parameters(made) // 2), Budget("macs", 10**9)]
    for plan, again in zip(both(kind, budgets), both(kind, budgets), strict=True):
        assert plan == again
        assert PruningPlan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan
        torch.save(plan.to_dict(), tmp_path / "plan.pt")
        loaded = torch.load(tmp_path / "plan.pt", weights_only=True)
        assert PruningPlan.from_dict(loaded) == plan


def test_without_a_budget_that_binds_everything_is_kept() -> None:
    for plan in both("option A", [Budget("macs", 10**12)]):
        assert (plan.ratio, plan.macs_ratio, plan.convolution_ratio) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_best_that_is_named_can_be_met(kind: str, unit: Unit) -> None:
    made, layers = subject(kind)
    with pytest.raises(TargetInfeasible) as caught:
        check_budgets(made, layers, [Budget(unit, 1)])
    best = Budget(unit, caught.value.best)

    for plan in both(kind, [best]):
        assert measured(prune(made, plan), unit) == best.limit
    with pytest.raises(TargetInfeasible):
        both(kind, [Budget(unit, best.limit - 1)])


def test_a_limit_on_latency_is_refused_with_what_to_do() -> None:
    with pytest.raises(TargetUnsupported, match=r"latency.*parameters.*cstar"):
        check_budgets(*subject("vgg"), [Budget("latency", 10**6)])
