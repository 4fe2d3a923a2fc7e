"""Budgets in every unit, alone and together: what can be met, and what is said otherwise."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from cstar_core.architectures import Architecture, build
from cstar_core.errors import TargetInfeasible
from cstar_core.export import write_model
from cstar_core.factorization import factorise
from cstar_core.layers import Layer, describe
from cstar_core.projection import Ranks
from cstar_core.ranks import (
    Budget,
    Inventory,
    LatencyTable,
    LayerTimes,
    Unit,
    energy_plan,
    minimum,
    needed_scope,
    plan_network,
    spectra,
    uniform_plan,
    why_dense,
)
from cstar_core.ranks.feasibility import leanest

from .networks import INPUT, conv, residual_net, tables_for
from .problems import UNITS, chains, spent, times_for

# Bytes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [1.0, 3.0, 10.0])
def test_bytes_are_those_of_the_tensors_that_are_exported(ratio: float, tmp_path: Path) -> None:
    network = build(Architecture("resnet8_cifar", {"width": 8}), seed=0)
    layers = describe(network, (3, 32, 32))
    budget = Inventory.of(network, layers).budget(ratio, "bytes")
    plan = plan_network(network, layers, [budget], multiple=2).recommended
    write_model(
        tmp_path,
        factorise(network, plan),
        input_shape=(3, 32, 32),
        mean=(0, 0, 0),
        std=(1, 1, 1),
        num_classes=10,
    )
    tensors = load_file(tmp_path / "model.safetensors").values()
    assert plan.bytes == sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    assert plan.bytes <= budget.limit
    assert plan.bytes_ratio >= ratio


def test_layers_and_what_is_kept_make_up_the_bytes() -> None:
    network = residual_net()
    layers = describe(network, INPUT)
    (plan, *_) = plan_network(network, layers, [Budget("bytes", 7000)]).plans
    kept = Inventory.of(network, layers).kept("bytes")
    assert plan.bytes == kept + sum(layer.bytes for layer in plan.layers)
    assert kept == 4 * (2 * 8 + 16 + 10) + 4 * 2 * 8 + 8  # norm, biases, its statistics, a counter


# Out of reach ----------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40, derandomize=True)
@given(chains(), st.sampled_from(UNITS), st.integers(0, 1000))
def test_the_least_that_is_named_can_be_met_and_nothing_below_it(
    layers: list[Layer], unit: Unit, seed: int
) -> None:
    inventory = inventory_of(layers, seed=seed)
    tables = tables_for(layers)
    best = minimum(inventory, unit)
    plan = energy_plan(inventory, tables, [Budget(unit, best)], scope="linear")
    assert spent(plan, unit) == best
    with pytest.raises(TargetInfeasible) as refusal:
        uniform_plan(inventory, tables, [Budget(unit, best - 1)])
    assert (refusal.value.unit, refusal.value.best) == (unit, best)


def test_a_latency_out_of_reach_is_refused_in_milliseconds() -> None:
    layers = [conv("stem", out=6, into=3, size=8), conv("c", out=8, into=8, size=8)]
    table = times_for(layers, kept=2_000_400)
    inventory = Inventory(tuple(layers), 10_000, latency=table)
    best = minimum(inventory, "latency")
    with pytest.raises(TargetInfeasible, match=r"2\.0\d\d ms or more"):
        uniform_plan(inventory, tables_for(layers), [Budget("latency", best - 1)])


# Together --------------------------------------------------------------------------------------


def inventory_of(layers: list[Layer], *, seed: int) -> Inventory:
    weights = sum(layer.dense_parameters for layer in layers)
    return Inventory(tuple(layers), weights + 30, latency=times_for(layers, seed=seed))


def cheapest(inventory: Inventory, budgets: list[Budget]) -> bool:
    """Whether any choice of rank 1 or dense for each layer meets the budgets, by trying all."""
    names = [layer.name for layer in inventory.layers if not why_dense(layer, "linear")]
    return any(
        inventory.meets(dict(zip(names, choice, strict=True)), budgets)
        for choice in itertools.product((None, Ranks(1, 1)), repeat=len(names))
    )


@settings(deadline=None, max_examples=150, derandomize=True)
@given(
    chains(),
    st.integers(0, 10**6),
    st.lists(st.tuples(st.sampled_from(UNITS), st.floats(1, 1.6)), min_size=1, max_size=3),
)
def test_budgets_are_met_together_exactly_when_some_choice_meets_them(
    layers: list[Layer], seed: int, slack: list[tuple[Unit, float]]
) -> None:
    inventory = inventory_of(layers, seed=seed)
    budgets = [Budget(unit, int(minimum(inventory, unit) * more)) for unit, more in slack]
    possible = cheapest(inventory, budgets)
    found = leanest(inventory, budgets, "linear")
    assert (found is not None) == possible
    if found is not None:
        assert inventory.meets(found, budgets)
    else:
        with pytest.raises(TargetInfeasible) as refusal:
            needed_scope(inventory, budgets)
        error = refusal.value
        eased = [Budget(b.unit, error.best if b.unit == error.unit else b.limit) for b in budgets]
        asked = [b for b in eased if b.unit == error.unit]
        others = [b for b in budgets if b.unit != error.unit]
        below = [Budget(b.unit, error.best - 1) for b in asked]
        assert any(
            cheapest(inventory, [*asked, *some]) and not cheapest(inventory, [*below, *some])
            for size in range(len(others), 0, -1)
            for some in itertools.combinations(others, size)
        )


def small_or_fast() -> Inventory:
    """One layer that is small factorised and fast dense, never both."""
    layers = (conv("stem", out=8, into=3, size=8), conv("c", out=8, into=8, size=8))
    slow = LayerTimes(100, (1, 8), (1, 8), (150, 160), (150, 160), ((150, 200), (200, 300)))
    table = LatencyTable("made up", 50, {"stem": LayerTimes(10), "c": slow})
    return Inventory(layers, sum(layer.dense_parameters for layer in layers), latency=table)


def test_budgets_that_exclude_each_other_are_refused_with_a_way_out() -> None:
    inventory = small_or_fast()
    small, fast = Budget("parameters", 300), Budget("latency", 200)
    tables = tables_for(inventory.layers)
    for alone in (small, fast):
        assert energy_plan(inventory, tables, [alone]).layers
    with pytest.raises(TargetInfeasible, match="not together") as refusal:
        energy_plan(inventory, tables, [small, fast])
    assert (refusal.value.unit, refusal.value.best) == ("latency", 50 + 10 + 3 * 150)
    plan = energy_plan(inventory, tables, [small, Budget("latency", refusal.value.best)])
    assert [layer.ranks for layer in plan.factorised] == [(1, 1)]


def test_two_budgets_of_one_unit_hold_by_the_tighter_one() -> None:
    network = residual_net()
    layers = describe(network, INPUT)
    inventory = Inventory.of(network, layers)
    plan = uniform_plan(
        inventory, spectra(network, layers), [Budget("bytes", 9000), Budget("bytes", 7000)]
    )
    assert plan.bytes <= 7000
