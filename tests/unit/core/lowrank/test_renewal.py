"""Plans made anew by their own strategy."""

from __future__ import annotations

import pytest

from cstar_core.architectures import Architecture, build
from cstar_core.layers import describe
from cstar_core.ranks import Budget, Inventory, RankPlan, candidates, renew, spectra

NETWORK = build(Architecture("resnet8_cifar", {}), seed=0)
LAYERS = describe(NETWORK, (3, 32, 32))
BUDGET = Budget("parameters", Inventory.of(NETWORK, LAYERS).parameters // 4)
PLANS = candidates(NETWORK, LAYERS, [BUDGET], multiple=4)


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: str(plan.name))
def test_the_same_energies_give_the_same_plan(plan: RankPlan) -> None:
    assert renew(plan, NETWORK, LAYERS, spectra(NETWORK, LAYERS)) == plan


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: str(plan.name))
def test_other_energies_still_meet_the_budget(plan: RankPlan) -> None:
    other = build(Architecture("resnet8_cifar", {}), seed=1)
    renewed = renew(plan, other, LAYERS, spectra(other, LAYERS))

    assert renewed.name == plan.name
    assert renewed.parameters <= BUDGET.limit


def test_a_plan_by_the_callers_weights_is_refused() -> None:
    weights = {layer.name: 10.0**number for number, layer in enumerate(LAYERS)}
    named = candidates(NETWORK, LAYERS, [BUDGET], weights=weights)
    (plan,) = [plan for plan in named if plan.name == "energy-weighted"]

    with pytest.raises(ValueError, match="weighted"):
        renew(plan, NETWORK, LAYERS, spectra(NETWORK, LAYERS))
