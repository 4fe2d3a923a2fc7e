"""Global rank selection: budgets, scopes, uniform ranks, greedy energy, candidates."""

from __future__ import annotations

import itertools
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cstar_core.errors import TargetInfeasible
from cstar_core.layers import Layer, describe
from cstar_core.projection import Ranks, project
from cstar_core.ranks import (
    Budget,
    EnergyTable,
    Inventory,
    RankPlan,
    Scope,
    candidates,
    energy_plan,
    minimum,
    needed_scope,
    spectra,
    uniform_plan,
    why_dense,
)
from cstar_core.ranks.grid import RankGrid

from .networks import INPUT, conv, random_weight, residual_net, resnet18_cifar, tables_for
from .problems import Problem, problems, spent

RESNET18 = resnet18_cifar()
TABLES = tables_for(RESNET18.layers)


def ranks_of(plan: RankPlan) -> dict[str, Ranks | None]:
    return {layer.name: layer.ranks for layer in plan.layers}


# What a network costs, and how far it can go ---------------------------------------------------


def test_resnet18_has_the_known_number_of_parameters() -> None:
    assert RESNET18.parameters == 11_173_962


@pytest.mark.parametrize(("scope", "ratio"), [("conv", 57), ("pointwise", 444), ("linear", 543)])
def test_the_furthest_ratio_of_resnet18_by_scope(scope: Scope, ratio: int) -> None:
    assert round(RESNET18.parameters / minimum(RESNET18, "parameters", scope)) == ratio


@pytest.mark.parametrize(
    ("ratio", "fraction"),
    [(2, 0.597), (4, 0.392), (8, 0.249), (16, 0.153), (32, 0.089), (64, 0.048)],
)
def test_the_uniform_fraction_of_resnet18(ratio: float, fraction: float) -> None:
    plan = uniform_plan(RESNET18, TABLES, [RESNET18.budget(ratio)], scope="pointwise")
    assert plan.settings["fraction"] == pytest.approx(fraction, abs=5e-4)
    assert plan.ratio >= ratio


def test_an_impossible_budget_is_refused_with_the_best_that_can_be_met() -> None:
    best = minimum(RESNET18, "parameters")
    with pytest.raises(TargetInfeasible, match=r"542\.9 or less") as refusal:
        uniform_plan(RESNET18, TABLES, [RESNET18.budget(600)])
    assert (refusal.value.unit, refusal.value.best) == ("parameters", best)


def test_the_ratio_a_refusal_names_can_be_met() -> None:
    assert uniform_plan(RESNET18, TABLES, [RESNET18.budget(542.9)]).ratio >= 542.9


def test_the_best_budget_itself_can_be_met() -> None:
    budget = Budget("parameters", minimum(RESNET18, "parameters"))
    assert energy_plan(RESNET18, TABLES, [budget]).parameters == budget.limit


def test_a_scope_that_cannot_meet_the_budget_is_refused() -> None:
    with pytest.raises(TargetInfeasible):
        energy_plan(RESNET18, TABLES, [RESNET18.budget(64)], scope="conv")


@pytest.mark.parametrize(
    ("ratio", "scope"), [(2, "conv"), (16, "conv"), (64, "pointwise"), (500, "linear")]
)
def test_the_scope_widens_only_when_the_budget_needs_it(ratio: float, scope: Scope) -> None:
    assert needed_scope(RESNET18, [RESNET18.budget(ratio)]) == scope


def test_a_budget_must_be_positive() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Budget("macs", 0)


# Plans -----------------------------------------------------------------------------------------


def plans(ratio: float, *, multiple: int = 1) -> list[RankPlan]:
    budgets = [RESNET18.budget(ratio)]
    return [
        uniform_plan(RESNET18, TABLES, budgets, multiple=multiple),
        energy_plan(RESNET18, TABLES, budgets, weighting="raw", multiple=multiple),
        energy_plan(RESNET18, TABLES, budgets, per="macs", multiple=multiple),
    ]


@pytest.mark.parametrize("ratio", [1, 4, 64, 300])
def test_totals_are_those_of_the_layers_and_what_is_kept(ratio: float) -> None:
    for plan in plans(ratio):
        kept = RESNET18.kept("parameters")
        assert plan.parameters == kept + sum(layer.parameters for layer in plan.layers)
        assert plan.macs == sum(layer.macs for layer in plan.layers)
        assert plan.ratio == 11_173_962 / plan.parameters


@pytest.mark.parametrize("ratio", [1, 2, 64])
def test_every_dense_layer_has_its_reason_and_no_other_layer_has(ratio: float) -> None:
    for plan in plans(ratio):
        for layer in plan.layers:
            assert (layer.method == "dense") == (layer.ranks is None) == bool(layer.reason)


def test_the_methods_follow_the_kinds() -> None:
    plan = uniform_plan(RESNET18, TABLES, [RESNET18.budget(400)], scope="linear")
    methods = {layer.kind: layer.method for layer in plan.factorised}
    assert methods == {"conv": "tucker2", "pointwise": "svd", "linear": "svd"}


def test_a_plan_survives_json() -> None:
    for plan in plans(8):
        assert RankPlan.from_json(plan.to_json()) == plan


def test_the_convolution_ratio_leaves_out_everything_else() -> None:
    plan = uniform_plan(RESNET18, TABLES, [RESNET18.budget(64)])
    convolutions = [layer for layer in plan.layers if layer.name != "fc"]
    before = sum(layer.dense_parameters for layer in convolutions)
    assert plan.convolution_ratio == before / sum(layer.parameters for layer in convolutions)
    assert plan.convolution_ratio > plan.ratio


def test_a_budget_above_the_dense_network_leaves_it_dense() -> None:
    plan = energy_plan(RESNET18, TABLES, [Budget("parameters", 20_000_000)])
    assert not plan.factorised
    assert plan.ratio == 1


@pytest.mark.parametrize("multiple", [4, 8])
def test_ranks_are_multiples_or_small_powers_of_two(multiple: int) -> None:
    for ratio in (4, 64):
        for plan in plans(ratio, multiple=multiple):
            for rank in itertools.chain(*(layer.ranks or () for layer in plan.layers)):
                assert rank % multiple == 0 or rank in {1, 2, 4}


def test_no_factorised_layer_is_larger_than_dense() -> None:
    for plan in plans(1.2):
        assert all(layer.parameters < layer.dense_parameters for layer in plan.factorised)


def test_grouped_convolutions_stay_dense() -> None:
    grouped = Layer(name="g", kind="conv", O=8, I=8, kernel=(3, 3), groups=2)
    assert "grouped" in why_dense(grouped, "linear")


def test_a_layer_too_small_to_factorise_stays_dense() -> None:
    assert "smaller" in why_dense(conv("c", out=2, into=1, size=4, k=1), "linear")


def test_energies_are_those_of_the_projection() -> None:
    network = residual_net()
    layers = describe(network, INPUT)
    inventory = Inventory.of(network, layers)
    plan = energy_plan(inventory, spectra(network, layers), [inventory.budget(2)], scope="linear")
    assert plan.factorised
    for layer in plan.factorised:
        weight = network.get_parameter(f"{layer.name}.weight").detach().double()
        assert layer.ranks is not None
        kept = float(project(weight, layer.ranks).square().sum() / weight.square().sum())
        assert layer.energy_kept == pytest.approx(kept, abs=0.02)


def test_spectra_come_from_a_network_or_from_weights() -> None:
    network = residual_net()
    layers = describe(network, INPUT)
    weights = {layer.name: network.get_parameter(f"{layer.name}.weight") for layer in layers}
    ours, theirs = spectra(network, layers), spectra(weights, layers)
    assert all(np.array_equal(ours[name].values, theirs[name].values) for name in weights)


def test_a_layer_of_zeros_does_not_break_the_plan() -> None:
    tables = TABLES | {"layer4.0.conv1": EnergyTable(np.zeros((512, 256)))}
    plan = energy_plan(RESNET18, tables, [RESNET18.budget(8)])
    assert plan.ratio >= 8


def test_weights_for_each_layer_move_ranks_towards_it() -> None:
    def ranks(weight: float) -> Ranks | None:
        weights = dict.fromkeys(TABLES, 1.0) | {"layer3.1.conv2": weight}
        plan = energy_plan(
            RESNET18, TABLES, [RESNET18.budget(16)], weighting="fisher", weights=weights
        )
        return ranks_of(plan)["layer3.1.conv2"]

    low, high = ranks(1e-3), ranks(1e3)
    assert low is not None
    assert high is None or high > low


def test_an_unknown_weighting_is_refused() -> None:
    with pytest.raises(ValueError, match="weighting"):
        energy_plan(RESNET18, TABLES, [RESNET18.budget(8)], weighting="best")  # type: ignore[arg-type]


def test_no_rank_falls_below_half_the_uniform_one() -> None:
    budgets = [RESNET18.budget(8)]
    uniform = ranks_of(uniform_plan(RESNET18, TABLES, budgets))
    for name, ranks in ranks_of(energy_plan(RESNET18, TABLES, budgets)).items():
        floor = uniform[name]
        if ranks and floor:
            assert 2 * ranks.r_out >= floor.r_out - 1
            assert 2 * ranks.r_in >= floor.r_in - 1


def test_no_mode_starves_beside_the_other() -> None:
    plan = energy_plan(RESNET18, TABLES, [RESNET18.budget(16)])
    sizes = {layer.name: (layer.O, layer.I) for layer in RESNET18.layers}
    for layer in plan.factorised:
        assert layer.ranks is not None
        fractions = [rank / size for rank, size in zip(layer.ranks, sizes[layer.name], strict=True)]
        assert max(fractions) <= 4.01 * min(fractions)


def test_a_budget_on_macs_gives_a_faster_plan_of_the_same_size() -> None:
    size = RESNET18.budget(4)
    small = energy_plan(RESNET18, TABLES, [size])
    both = energy_plan(RESNET18, TABLES, [size, RESNET18.budget(4, "macs")])
    assert both.macs < small.macs
    assert both.macs_ratio >= 4
    assert both.ratio >= 4


# Candidates ------------------------------------------------------------------------------------


def candidate_names(*budgets: Budget, weights: dict[str, float] | None = None) -> list[str]:
    network = residual_net()
    found = candidates(network, describe(network, INPUT), budgets, weights=weights)
    return [plan.name for plan in found]


def test_uniform_is_the_first_candidate_and_all_meet_the_budget() -> None:
    network = residual_net()
    layers = describe(network, INPUT)
    budget = Inventory.of(network, layers).budget(2)
    found = candidates(network, layers, [budget])
    assert [plan.name for plan in found][:2] == ["uniform", "energy-raw"]
    assert len({plan.layers for plan in found}) == len(found)
    assert all(plan.parameters <= budget.limit for plan in found)


def test_candidates_per_mac_are_left_out_where_macs_have_a_budget() -> None:
    parameters, macs = Budget("parameters", 1600), Budget("macs", 60_000)
    assert "energy-relative-per-macs" in candidate_names(parameters)
    assert "energy-relative-per-macs" not in candidate_names(parameters, macs)


def test_weights_add_a_candidate() -> None:
    weights = {"stem": 1.0, "down": 50.0, "wide": 1.0, "shortcut": 1.0, "fc": 1.0}
    assert "energy-fisher" in candidate_names(Budget("parameters", 1600), weights=weights)


# Properties ------------------------------------------------------------------------------------


def every_plan(problem: Problem) -> list[RankPlan]:
    """One plan by each strategy."""
    inventory, tables, budgets = problem.inventory, problem.tables, problem.budgets
    weights = {layer.name: 1.0 + number for number, layer in enumerate(inventory.layers)}
    energy = partial(energy_plan, inventory, tables, budgets, multiple=problem.multiple)
    return [
        uniform_plan(inventory, tables, budgets, multiple=problem.multiple),
        energy(weighting="raw"),
        energy(weighting="relative"),
        energy(weighting="fisher", weights=weights),
        energy(per="macs"),
    ]


def steps_up(problem: Problem, layer: Layer, ranks: Ranks | None) -> list[Ranks | None]:
    """Every single step from `ranks` that a plan may take."""
    if ranks is None:
        return []
    grid = RankGrid(layer, problem.multiple)
    smaller = [
        step
        for step in grid.neighbours(ranks, aspect=4.0)
        if problem.inventory.pays(layer, step, problem.budgets)
    ]
    return [*smaller, None]


@settings(max_examples=80, deadline=None, derandomize=True)
@given(problems())
def test_every_plan_meets_every_budget(problem: Problem) -> None:
    for plan in every_plan(problem):
        assert all(spent(plan, budget.unit) <= budget.limit for budget in problem.budgets)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(problems())
def test_no_single_step_more_fits(problem: Problem) -> None:
    for plan in every_plan(problem):
        chosen = ranks_of(plan)
        scoped = [layer for layer in problem.inventory.layers if not why_dense(layer, plan.scope)]
        for layer in scoped:
            kept = problem.tables[layer.name].kept
            for step in steps_up(problem, layer, chosen[layer.name]):
                if plan.strategy == "uniform" or kept(step) > kept(chosen[layer.name]):
                    after = chosen | {layer.name: step}
                    assert not problem.inventory.meets(after, problem.budgets)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(problems())
def test_no_rank_is_dead(problem: Problem) -> None:
    taps = {layer.name: layer.taps for layer in problem.inventory.layers}
    for plan in every_plan(problem):
        for layer in plan.factorised:
            assert layer.ranks is not None
            r_out, r_in = layer.ranks
            assert r_out <= r_in * taps[layer.name]
            assert r_in <= r_out * taps[layer.name]


@settings(max_examples=20, deadline=None, derandomize=True)
@given(problems())
def test_the_same_problem_gives_the_same_plans(problem: Problem) -> None:
    assert every_plan(problem) == every_plan(problem)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(problems())
def test_every_plan_survives_json(problem: Problem) -> None:
    for plan in every_plan(problem):
        assert RankPlan.from_json(plan.to_json()) == plan


@settings(max_examples=40, deadline=None, derandomize=True)
@given(problems())
def test_a_factorised_layer_takes_less_of_some_budget_than_dense(problem: Problem) -> None:
    inventory = problem.inventory
    layers = {layer.name: layer for layer in inventory.layers}
    for plan in every_plan(problem):
        for layer in plan.factorised:
            assert layer.ranks is not None
            lean = layer.ranks == (1, 1)  # several budgets may leave no other choice
            assert lean or inventory.pays(layers[layer.name], layer.ranks, problem.budgets)


# Exhaustive search -----------------------------------------------------------------------------


OPTIMUM_SHARE = 0.9


def best_energy(inventory: Inventory, tables: dict[str, EnergyTable], room: int) -> float:
    """The most relative energy any ranks keep within `room` parameters, by trying them all."""
    energy, cost = np.zeros(1), np.zeros(1)
    for layer in inventory.layers:
        pairs: list[Ranks | None] = [
            Ranks(a, b)
            for a, b in itertools.product(range(1, layer.O + 1), range(1, layer.I + 1))
            if a <= b * layer.taps and b <= a * layer.taps
        ]
        options = [*pairs, None]
        gains = np.array([tables[layer.name].relative(ranks) for ranks in options])
        costs = np.array([inventory.cost(layer, ranks, "parameters") for ranks in options])
        energy = (energy[:, None] + gains).ravel()
        cost = (cost[:, None] + costs).ravel()
    return float(energy[cost <= room].max())


@st.composite
def small_networks(draw: st.DrawFn) -> tuple[Inventory, dict[str, EnergyTable]]:
    """Two or three 3x3 convolutions with weights behind their energies."""
    sides = st.tuples(st.integers(4, 8), st.integers(4, 8))
    sizes = draw(st.lists(sides, min_size=2, max_size=3))
    layers = [conv(f"c{n}", out=out, into=into, size=8) for n, (out, into) in enumerate(sizes)]
    seed = draw(st.integers(0, 10**6))
    weights = {
        layer.name: random_weight(layer.O, layer.I, 3, 3, seed=seed + number)
        for number, layer in enumerate(layers)
    }
    inventory = Inventory(tuple(layers), sum(layer.dense_parameters for layer in layers))
    return inventory, spectra(weights, layers)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(small_networks(), st.floats(1.2, 4))
def test_greedy_energy_is_close_to_that_of_exhaustive_search(
    network: tuple[Inventory, dict[str, EnergyTable]], ratio: float
) -> None:
    inventory, tables = network
    budget = inventory.budget(ratio)
    plan = energy_plan(inventory, tables, [budget], weighting="relative")
    found = sum(layer.energy_kept for layer in plan.layers)
    assert found >= OPTIMUM_SHARE * best_energy(inventory, tables, budget.limit)
