"""Planning problems drawn at random: layers, energies, times and budgets that can be met."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from hypothesis import strategies as st

from cstar_core.layers import Layer
from cstar_core.ranks import (
    Budget,
    EnergyTable,
    Inventory,
    LatencyTable,
    LayerTimes,
    RankPlan,
    Unit,
    minimum,
    uniform_plan,
    why_dense,
)

from .networks import conv, tables_for

UNITS: tuple[Unit, ...] = ("parameters", "macs", "bytes", "latency")


@dataclass(frozen=True)
class Problem:
    """What a planner is given."""

    inventory: Inventory
    tables: dict[str, EnergyTable]
    budgets: list[Budget]
    multiple: int


def spent(plan: RankPlan, unit: Unit) -> int:
    """The cost of the whole plan in `unit`."""
    values = {
        "parameters": plan.parameters,
        "macs": plan.macs,
        "bytes": plan.bytes,
        "latency": plan.latency_ns,
    }
    cost = values[unit]
    assert cost is not None
    return cost


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """A chain of layers, a multiple, and one to three budgets of different units.

    The first plan that uniform ranks find at some drawn size sets the limits, so that they can be
    met together.
    """
    layers = draw(chains())
    weights = sum(layer.dense_parameters for layer in layers)
    inventory = Inventory(
        tuple(layers),
        weights + draw(st.integers(0, 50)),
        other_bytes=draw(st.integers(0, 200)),
        latency=times_for(layers, seed=draw(st.integers(0, 10**6))),
    )
    tables = tables_for(layers, seed=draw(st.integers(0, 10**6)))
    units = draw(st.lists(st.sampled_from(UNITS), min_size=1, max_size=3, unique=True))
    share = draw(st.floats(0.02, 1))
    least, most = minimum(inventory, units[0]), inventory.dense(units[0])
    first = Budget(units[0], round(least + share * (most - least)))
    plan = uniform_plan(inventory, tables, [first])
    others = [
        Budget(unit, round(spent(plan, unit) * draw(st.sampled_from([1.0, 1.1, 2.0]))))
        for unit in units[1:]
    ]
    return Problem(inventory, tables, [first, *others], draw(st.sampled_from([1, 1, 2, 4])))


@st.composite
def chains(draw: st.DrawFn) -> list[Layer]:
    """A stem, one to four convolutions of any kind, and a classifier."""
    size = draw(st.integers(8, 16))
    middle = [
        conv(
            f"c{number}",
            out=draw(st.integers(4, 24)),
            into=draw(st.integers(4, 24)),
            size=size,
            k=draw(st.sampled_from([1, 3, 3])),
            stride=draw(st.sampled_from([1, 2])),
        )
        for number in range(draw(st.integers(1, 4)))
    ]
    classifier = Layer(name="fc", kind="linear", O=10, I=draw(st.integers(4, 24)), bias=True)
    return [conv("stem", out=6, into=3, size=size), *middle, classifier]


def times_for(layers: Iterable[Layer], *, seed: int = 0, kept: int = 5_000) -> LatencyTable:
    """Made-up times that rise with the ranks; some layers are faster dense than at rank 1."""
    random = np.random.default_rng(seed)
    return LatencyTable("a made-up device", kept, {x.name: _times(x, random) for x in layers})


def _times(layer: Layer, random: np.random.Generator) -> LayerTimes:
    dense = LayerTimes(int(random.integers(1, 200)) + layer.dense_macs // 50)
    if why_dense(layer, "linear"):
        return dense
    out_ranks, in_ranks = (
        tuple(sorted({1, *random.integers(1, size + 1, 2).tolist(), size}))
        for size in layer.max_ranks
    )
    if layer.kind != "conv":
        in_ranks = out_ranks
    steps = random.integers(0, dense.dense // 6 + 2, (len(out_ranks), len(in_ranks)))
    core = steps.cumsum(0).cumsum(1) // 2
    return replace(
        dense,
        out_ranks=out_ranks,
        in_ranks=in_ranks,
        first=_rising(random, len(in_ranks)),
        last=_rising(random, len(out_ranks)),
        core=tuple(map(tuple, core.tolist())) if layer.kind == "conv" else (),
    )


def _rising(random: np.random.Generator, length: int) -> tuple[int, ...]:
    return tuple(random.integers(1, 40, length).cumsum().tolist())
