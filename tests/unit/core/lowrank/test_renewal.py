"""Plans made anew by their own strategy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cstar_core.architectures import Architecture, build
from cstar_core.layers import describe
from cstar_core.ranks import Budget, Inventory, RankPlan, Unit, candidates, eased, renew, spectra

NETWORK = build(Architecture("resnet8_cifar", {}), seed=0)
LAYERS = describe(NETWORK, (3, 32, 32))
INVENTORY = Inventory.of(NETWORK, LAYERS)
BUDGET = Budget("parameters", INVENTORY.parameters // 4)
WEIGHTS = {layer.name: 10.0 ** (number % 3) for number, layer in enumerate(LAYERS)}
TABLES = spectra(NETWORK, LAYERS)  # once: their last bits depend on the number of threads
PLANS = candidates(NETWORK, LAYERS, [BUDGET], tables=TABLES, multiple=4, weights=WEIGHTS)


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: str(plan.name))
def test_the_same_energies_give_the_same_plan(plan: RankPlan) -> None:
    assert renew(plan, INVENTORY, TABLES) == plan


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: str(plan.name))
def test_other_energies_still_meet_the_budget(plan: RankPlan) -> None:
    other = build(Architecture("resnet8_cifar", {}), seed=1)
    renewed = renew(plan, INVENTORY, spectra(other, LAYERS))

    assert renewed.name == plan.name
    assert renewed.parameters <= BUDGET.limit


def test_there_is_a_plan_of_every_strategy() -> None:
    assert {plan.name for plan in PLANS} >= {"uniform", "energy-relative", "energy-fisher"}


def test_a_renewed_plan_may_have_another_budget() -> None:
    for plan in PLANS:
        looser = renew(plan, INVENTORY, TABLES, budgets=[INVENTORY.budget(2)])
        assert BUDGET.limit < looser.parameters <= INVENTORY.budget(2).limit


def test_a_plan_read_back_from_json_is_renewed_alike() -> None:
    for plan in PLANS:
        assert renew(RankPlan.from_json(plan.to_json()), INVENTORY, TABLES) == plan


@given(
    ratio=st.floats(1, 20),
    unit=st.sampled_from(["parameters", "macs", "bytes"]),
    steps=st.integers(1, 9),
)
def test_eased_budgets_tighten_from_below_dense_to_the_target_exactly(
    ratio: float, unit: Unit, steps: int
) -> None:
    budget = INVENTORY.budget(ratio, unit)
    limits = [eased(INVENTORY, [budget], step / steps)[0].limit for step in range(1, steps + 1)]
    assert limits == sorted(limits, reverse=True)
    assert limits[-1] == budget.limit
    assert limits[0] <= INVENTORY.dense(unit)


def test_half_way_a_budget_is_the_geometric_mean_of_dense_and_target() -> None:
    (half,) = eased(INVENTORY, [INVENTORY.budget(16)], 0.5)
    assert INVENTORY.dense("parameters") / half.limit == pytest.approx(4, rel=1e-3)


def test_a_budget_above_dense_stays_as_it_is() -> None:
    loose = Budget("macs", 10 * INVENTORY.dense("macs"))
    assert eased(INVENTORY, [loose], 0.3) == (loose,)
