"""Latency tables: times at any ranks, JSON, the cache, and one real measurement."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cstar_core.layers import Layer, describe
from cstar_core.projection import Ranks
from cstar_core.ranks import (
    Budget,
    Inventory,
    LatencyTable,
    LayerTimes,
    energy_plan,
    minimum,
    time_layers,
    uniform_plan,
    why_dense,
)
from cstar_core.ranks.timing_cache import TimingCache

from .networks import INPUT, conv, residual_net, resnet18_cifar, tables_for
from .problems import chains, times_for

TIMES = LayerTimes(
    dense=900,
    out_ranks=(1, 8, 16),
    in_ranks=(1, 4),
    first=(10, 40),
    last=(5, 12, 20),
    core=((100, 130), (170, 200), (250, 400)),
)


# Tables ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ranks", "expected"),
    [
        (None, 900),
        (Ranks(1, 1), 10 + 5 + 100),
        (Ranks(16, 4), 40 + 20 + 400),
        (Ranks(8, 2), 20 + 12 + 180),
        (Ranks(12, 4), 40 + 16 + 300),
    ],
)
def test_times_are_those_of_the_grid_and_linear_between(ranks: Ranks | None, expected: int) -> None:
    assert TIMES.at(ranks) == expected


def test_a_pair_has_no_core() -> None:
    pair = LayerTimes(50, out_ranks=(1, 3), in_ranks=(1, 3), first=(4, 8), last=(1, 5))
    assert pair.at(Ranks(2, 2)) == 6 + 3


def test_a_mode_of_size_one_has_one_time() -> None:
    thin = LayerTimes(50, (1,), (1, 3), first=(4, 8), last=(7,), core=((10, 30),))
    assert thin.at(Ranks(1, 2)) == 6 + 7 + 20


@settings(deadline=None, max_examples=50, derandomize=True)
@given(chains(), st.integers(0, 1000), st.data())
def test_times_never_fall_as_ranks_rise(
    layers: list[Layer], seed: int, data: st.DataObject
) -> None:
    table = times_for(layers, seed=seed)
    for layer in layers:
        if why_dense(layer, "linear"):
            continue
        most = layer.max_ranks
        low = Ranks(*(data.draw(st.integers(1, size)) for size in most))
        high = Ranks(
            *(data.draw(st.integers(rank, size)) for rank, size in zip(low, most, strict=True))
        )
        assert table.layers[layer.name].at(low) <= table.layers[layer.name].at(high)


@settings(deadline=None, max_examples=20, derandomize=True)
@given(chains(), st.integers(0, 1000))
def test_a_table_survives_json(layers: list[Layer], seed: int) -> None:
    table = times_for(layers, seed=seed)
    assert LatencyTable.from_dict(json.loads(json.dumps(table.to_dict()))) == table


# Plans by time ---------------------------------------------------------------------------------


def timed_resnet18(*, launch: int) -> Inventory:
    """Times of one nanosecond for 1000 MACs, and `launch` for every kernel."""

    def times(layer: Layer) -> LayerTimes:
        def at(piece_macs: int) -> int:
            return launch + piece_macs // 1000

        grid = (1, *(2**power for power in range(1, 10) if 2**power <= min(layer.max_ranks)))
        if layer.kind != "conv":
            half = [at(layer.factorised_macs(Ranks(r, r)) // 2) for r in grid]
            return LayerTimes(at(layer.dense_macs), grid, grid, tuple(half), tuple(half))
        areas = [h * w for h, w in (layer.input_hw, layer.output_hw)]
        core = tuple(tuple(at(areas[1] * 9 * a * b) for b in grid) for a in grid)
        return LayerTimes(
            at(layer.dense_macs),
            grid,
            grid,
            first=tuple(at(areas[0] * layer.I * rank) for rank in grid),
            last=tuple(at(areas[1] * layer.O * rank) for rank in grid),
            core=core,
        )

    inventory = resnet18_cifar()
    table = LatencyTable("made up", 1000, {layer.name: times(layer) for layer in inventory.layers})
    return Inventory(inventory.layers, inventory.parameters, latency=table)


def test_where_kernels_cost_nothing_a_budget_on_latency_factorises_as_one_on_macs() -> None:
    inventory = timed_resnet18(launch=0)
    tables = tables_for(inventory.layers)
    plan = uniform_plan(inventory, tables, [inventory.budget(4, "latency")])
    assert plan.macs_ratio == pytest.approx(4, rel=0.1)
    assert plan.latency_ns is not None
    assert plan.latency_ns <= inventory.dense("latency") / 4


def test_a_layer_that_is_slower_factorised_stays_dense_and_says_why() -> None:
    inventory = timed_resnet18(launch=3000)
    budget = Budget("latency", round(1.2 * minimum(inventory, "latency")))
    for plan in (
        uniform_plan(inventory, tables_for(inventory.layers), [budget], scope="linear"),
        energy_plan(inventory, tables_for(inventory.layers), [budget], scope="linear"),
    ):
        classifier = next(layer for layer in plan.layers if layer.name == "fc")
        assert "cheaper, even at rank 1" in classifier.reason
        assert plan.factorised
        for layer in plan.factorised:
            assert layer.latency_ns is not None
            assert layer.dense_latency_ns is not None
            assert layer.latency_ns < layer.dense_latency_ns


def test_a_plan_predicts_its_latency_whenever_there_is_a_table() -> None:
    inventory = timed_resnet18(launch=10)
    plan = uniform_plan(inventory, tables_for(inventory.layers), [inventory.budget(4)])
    layers = [layer.latency_ns or 0 for layer in plan.layers]
    assert plan.latency_ns == 1000 + sum(layers)
    assert plan.latency_ms == plan.latency_ns / 1e6


def test_without_a_table_there_is_no_latency_and_no_budget_on_it() -> None:
    inventory = resnet18_cifar()
    tables = tables_for(inventory.layers)
    assert uniform_plan(inventory, tables, [inventory.budget(4)]).latency_ms is None
    with pytest.raises(ValueError, match="time_layers"):
        uniform_plan(inventory, tables, [Budget("latency", 10)])


# Timing ----------------------------------------------------------------------------------------


def test_timing_a_network_gives_a_time_for_every_layer_at_every_rank(tmp_path: Path) -> None:
    network = residual_net().train()
    layers = describe(network, INPUT)
    random_state = torch.random.get_rng_state()
    table = time_layers(network, layers, cache=tmp_path, rounds=2, warmup=0)

    assert table.kept >= 0
    assert table.layers.keys() == {layer.name for layer in layers}
    for layer in layers:
        times = table.layers[layer.name]
        assert times.dense > 0
        if not why_dense(layer, "linear"):
            assert times.at(Ranks(1, 1)) <= times.at(layer.max_ranks)
    assert not table.layers["stem"].out_ranks
    assert network.training
    assert torch.equal(torch.random.get_rng_state(), random_state)


def test_what_a_file_of_times_knows_is_not_timed_again(tmp_path: Path) -> None:
    known = conv("", out=8, into=8, size=4)
    TimingCache("a machine", tmp_path).add({known: 123})
    (path,) = tmp_path.iterdir()
    path.write_text(path.read_text().replace("123", "456"))  # as if another process had timed it

    assert TimingCache("a machine", tmp_path)[known] == 456
    assert known not in TimingCache("another machine", tmp_path)


def test_a_file_that_is_no_cache_of_times_is_refused(tmp_path: Path) -> None:
    TimingCache("a machine", tmp_path).add({})
    (path,) = tmp_path.iterdir()
    path.write_text("[]")
    with pytest.raises(ValueError, match="delete it"):
        TimingCache("a machine", tmp_path)
