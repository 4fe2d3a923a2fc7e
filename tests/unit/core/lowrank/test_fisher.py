"""Fisher weights, and the front door that plans a network without images."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cstar_core.layers import describe
from cstar_core.ranks import (
    Budget,
    Inventory,
    candidates,
    fisher_weights,
    plan_network,
    time_layers,
)

from .networks import INPUT, residual_net

IMAGES = torch.rand(6, *INPUT, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(6) % 10


def weights_of(network: nn.Module) -> dict[str, float]:
    layers = [layer for layer in describe(network, INPUT) if not layer.is_stem]
    parameters = {x.name: network.get_parameter(f"{x.name}.weight") for x in layers}
    return fisher_weights(network, parameters, IMAGES, LABELS)


def test_the_weight_of_a_linear_layer_is_that_of_the_formula() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 10))
    weights = fisher_weights(network, {"1": network[1].weight}, IMAGES, LABELS)
    inputs = IMAGES.flatten(1)
    residual = network(inputs.reshape(IMAGES.shape)).softmax(1) - F.one_hot(LABELS, 10)
    # The gradient of one example is residual x input, of squared norm |residual|^2 |input|^2.
    squares = residual.square().sum(1) * inputs.square().sum(1)
    assert weights["1"] == pytest.approx(squares.mean().item() / (10 * 192), rel=1e-5)


def test_examples_are_squared_before_they_are_averaged() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 2, bias=False))
    nn.init.zeros_(network[1].weight)
    twins = IMAGES[:1].repeat(2, 1, 1, 1)  # opposite labels: the mean gradient vanishes
    weights = fisher_weights(network, {"1": network[1].weight}, twins, torch.tensor([0, 1]))
    assert weights["1"] == pytest.approx(0.5 * twins[0].square().sum().item() / 384, rel=1e-5)


def test_the_network_is_left_as_it_was() -> None:
    network = residual_net().train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    weights_of(network)
    assert network.training
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_a_gradient_that_vanishes_still_gives_a_positive_weight() -> None:
    network = residual_net()
    nn.init.zeros_(network.fc.weight)  # nothing below the classifier matters
    assert min(weights_of(network).values()) > 0


def test_fisher_weights_give_a_candidate_that_holds_them() -> None:
    network = residual_net()
    weights = dict.fromkeys(weights_of(network), 1e-3) | {"down": 50.0}
    budget = Budget("parameters", 1600)
    found = candidates(network, describe(network, INPUT), [budget], weights=weights)
    plans = {plan.name: plan for plan in found}
    assert plans["energy-fisher"].weights == weights
    assert not plans["uniform"].weights


def test_a_network_is_planned_without_an_image() -> None:
    network = residual_net()
    layers = describe(network, INPUT)
    table = time_layers(network, layers, rounds=2, warmup=0)
    budget = Inventory.of(network, layers).budget(2)
    proposal = plan_network(network, layers, [budget], latency=table)
    assert proposal.plans[0].name == "uniform"
    assert proposal.recommended in proposal.plans
    for plan in proposal.plans:
        assert plan.parameters <= budget.limit
        assert plan.latency_ms is not None
        kept = sum(layer.energy_kept for layer in plan.layers)
        assert kept <= sum(layer.energy_kept for layer in proposal.recommended.layers)
