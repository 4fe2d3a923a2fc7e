"""Every architecture of the registry, factorised at each ratio it can reach."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from cstar_core.architectures import Architecture, names, registry
from cstar_core.errors import TargetInfeasible
from cstar_core.factorization import factorise
from cstar_core.layers import Layer, count_parameters, describe
from cstar_core.projection import project
from cstar_core.ranks import Budget, Inventory, RankPlan, minimum, spectra, uniform_plan
from cstar_core.ranks.spectra import EnergyTable

RATIOS = (2, 4, 8, 16, 32, 64)
# What keeps a network small enough for a test, where it takes the argument.
SMALL: dict[str, int | bool | str] = {
    "num_classes": 10,
    "width": 8,
    "hidden": 32,
    "blocks": 2,
    "widen": 4,
}
# Height and width of the images, where the usual ones would only cost time.
SIDES = {32: 16, 224: 32}


@dataclass(frozen=True)
class Example:
    """A small network in float64, what the planner needs of it, and two images."""

    network: nn.Module
    inventory: Inventory
    tables: dict[str, EnergyTable]
    images: Tensor

    @property
    def smallest(self) -> Budget:
        """What every rank at 1 takes."""
        return Budget("parameters", minimum(self.inventory, "parameters", "linear"))

    @property
    def ladder(self) -> list[Budget]:
        """The budgets of `RATIOS` that can be met, and the smallest one."""
        budgets = [self.inventory.budget(ratio) for ratio in RATIOS]
        met = [budget for budget in budgets if budget.limit >= self.smallest.limit]
        return [*met, self.smallest]

    def plan(self, budget: Budget) -> RankPlan:
        return uniform_plan(self.inventory, self.tables, [budget])

    @torch.no_grad()
    def reconstructed(self, plan: RankPlan) -> nn.Module:
        """The dense network with each planned weight projected in place."""
        network = copy.deepcopy(self.network)
        for layer in plan.factorised:
            assert layer.ranks is not None
            weight = network.get_parameter(f"{layer.name}.weight")
            weight.copy_(project(weight, layer.ranks))
        return network


@cache
def example(name: str) -> Example:
    entry = registry.find(name)
    arguments = {key: value for key, value in SMALL.items() if key in entry.arguments}
    network = registry.build(Architecture(name, arguments), seed=1).double().eval()
    generator = torch.Generator().manual_seed(2)
    for module in network.modules():  # no batch norm that does nothing
        if isinstance(module, nn.BatchNorm2d):
            module.get_buffer("running_mean").normal_(0, 0.1, generator=generator)
            module.get_buffer("running_var").uniform_(0.5, 2, generator=generator)
    channels, usual, _ = entry.input_shape
    # VGG halves its images five times, and resnet_2b2 has linear layers for 32x32.
    fixed = name in ("vgg16_bn_cifar", "resnet_2b2_cifar")
    side = usual if fixed else SIDES.get(usual, usual)
    layers = describe(network, (channels, side, side), stem=entry.stem)
    images = torch.rand(2, channels, side, side, generator=generator, dtype=torch.float64)
    return Example(network, Inventory.of(network, layers), spectra(network, layers), images)


@pytest.mark.parametrize("name", names())
def test_the_factorised_network_computes_the_dense_one_with_projected_weights(name: str) -> None:
    # In float64: all ranks at 1 leave a millionth of the signal of a random VGG, and the rounding
    # of float32 is then more than the 1e-5 of it that is asked for.
    given = example(name)
    for budget in given.ladder:
        plan = given.plan(budget)
        factorised = factorise(given.network, plan, hooi_sweeps=0)
        with torch.no_grad():
            expected = given.reconstructed(plan)(given.images)
            found = factorised(given.images)
        assert count_parameters(factorised) == plan.parameters <= budget.limit
        assert float((found - expected).abs().max()) <= 1e-5 * float(expected.abs().max()), budget


@pytest.mark.parametrize("name", names())
def test_a_budget_below_every_rank_at_one_is_refused(name: str) -> None:
    given = example(name)
    with pytest.raises(TargetInfeasible) as refusal:
        given.plan(Budget("parameters", given.smallest.limit - 1))
    assert refusal.value.best == given.smallest.limit


def test_depthwise_convolutions_stay_dense_and_say_so() -> None:
    given = example("mobilenet_v2_imagenet")
    depthwise = {layer.name for layer in given.inventory.layers if layer.groups > 1}
    plan = given.plan(given.smallest)
    reasons = {layer.reason for layer in plan.layers if layer.name in depthwise}
    assert len(depthwise) == 17
    assert reasons == {"grouped convolutions stay dense"}
    assert {layer.kind for layer in plan.factorised} == {"pointwise", "linear"}
    factorised = factorise(given.network, plan, hooi_sweeps=0)
    assert all(isinstance(factorised.get_submodule(layer), nn.Conv2d) for layer in depthwise)


def whole_model_ratios(architecture: Architecture) -> list[float]:
    """Dense parameters over those with all ranks 1: 3x3 only, with 1x1, with linear layers too."""
    entry = registry.find(architecture.name)
    network = registry.skeleton(architecture)
    layers: list[Layer] = describe(network, entry.input_shape, stem=entry.stem)
    inventory = Inventory.of(network, layers)
    return [
        inventory.parameters / minimum(inventory, "parameters", scope)
        for scope in ("conv", "pointwise", "linear")
    ]


@pytest.mark.parametrize(
    ("architecture", "ratios"),
    [
        (Architecture("resnet18_cifar"), [57, 444, 543]),
        (Architecture("vgg16_bn_cifar"), [632, 632, 788]),
        (Architecture("wideresnet_cifar", {"widen": 4}), [99, 325, 372]),
        (Architecture("resnet18_imagenet"), [16, 22, 387]),
        (Architecture("resnet50_imagenet"), [1.8, 12, 221]),
    ],
    ids=lambda value: value.name if isinstance(value, Architecture) else "",
)
def test_all_ranks_at_one_reach_the_ratios_of_the_design(
    architecture: Architecture, ratios: list[float]
) -> None:
    found = whole_model_ratios(architecture)
    assert [round(value, 1 if value < 2 else None) for value in found] == ratios
