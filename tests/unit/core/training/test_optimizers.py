from __future__ import annotations

import pytest
import torch
from torch import nn

from cstar_core.architectures import Architecture
from cstar_core.architectures.registry import names, skeleton
from cstar_core.factorization import restructure
from cstar_core.factors import factor_weights, is_factorised
from cstar_core.training.optimizers import sgd

from ..lowrank.networks import residual_net
from ..lowrank.test_factorization import CHOICES, plan_for
from .problems import config


def factorised_network() -> nn.Sequential:
    """A stem, a layer in three factors, batch norm, and a classifier in two."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1),
        nn.Sequential(
            nn.Conv2d(6, 2, 1, bias=False),
            nn.Conv2d(2, 3, 3, padding=1, bias=False),
            nn.Conv2d(3, 8, 1),
        ),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Sequential(nn.Linear(8 * 64, 2, bias=False), nn.Linear(2, 3)),
    )


def decays(model: nn.Module, **changes: float | bool) -> dict[str, float]:
    optimizer = sgd(model, config(weight_decay=0.1, **changes))
    by_id = {
        id(parameter): group["weight_decay"]
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    return {name: by_id[id(parameter)] for name, parameter in model.named_parameters()}


def test_factors_have_a_weight_decay_of_their_own() -> None:
    found = decays(factorised_network(), factor_weight_decay=0.01)
    assert {name for name, decay in found.items() if decay == 0.01} == {
        "1.0.weight",
        "1.1.weight",
        "1.2.weight",
        "5.0.weight",
        "5.1.weight",
    }
    assert found["0.weight"] == 0.1
    assert {decay for name, decay in found.items() if "bias" in name or name[0] == "2"} == {0.0}


def test_factors_decay_as_other_weights_unless_asked() -> None:
    found = decays(factorised_network())
    assert {decay for name, decay in found.items() if name.startswith(("1.", "5."))} == {0.1, 0.0}


def test_vectors_of_factors_keep_the_usual_decay_where_vectors_decay() -> None:
    found = decays(factorised_network(), factor_weight_decay=0.01, weight_decay_on_norm=True)
    assert found["1.2.bias"] == found["2.weight"] == 0.1


def test_a_frozen_parameter_is_left_to_itself() -> None:
    model = factorised_network()
    model[0].weight.requires_grad_(False)
    optimizer = sgd(model, config())
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert id(model[0].weight) not in held
    assert len(held) == len(list(model.parameters())) - 1


@pytest.mark.parametrize(
    ("module", "factorised"),
    [
        (nn.Sequential(nn.Conv2d(2, 1, 1), nn.Conv2d(1, 2, 1)), True),
        (nn.Sequential(nn.Linear(4, 1), nn.Linear(1, 4)), True),
        (nn.Sequential(nn.Conv2d(2, 2, 1)), False),
        (nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)), False),
        (nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)), False),
        (nn.Sequential(), False),
        (nn.Conv2d(2, 2, 1), False),
    ],
)
def test_a_factorised_layer_is_told_by_its_form(module: nn.Module, factorised: bool) -> None:
    assert is_factorised(module) == factorised
    assert bool(list(factor_weights(module))) == factorised


def test_one_step_decays_each_group_at_its_own_rate() -> None:
    model = factorised_network()
    optimizer = sgd(
        model,
        config(learning_rate=1.0, momentum=0.0, weight_decay=0.1, factor_weight_decay=0.01),
    )
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    after = dict(model.named_parameters())
    for name, shrink in (("0.weight", 0.9), ("1.1.weight", 0.99), ("1.2.bias", 1.0)):
        assert torch.allclose(after[name], shrink * before[name], atol=1e-7)


@pytest.mark.parametrize("name", names())
def test_no_architecture_has_by_itself_what_looks_like_factors(name: str) -> None:
    assert list(factor_weights(skeleton(Architecture(name)))) == []


def test_the_factors_that_are_found_are_those_that_factorising_made() -> None:
    dense = residual_net()
    network = restructure(dense, plan_for(dense, CHOICES))
    before = {name for name, _ in dense.named_parameters()}
    made = {
        name
        for name, parameter in network.named_parameters()
        if name not in before and parameter.dim() > 1
    }
    found = {id(weight) for weight in factor_weights(network)}
    assert {name for name, p in network.named_parameters() if id(p) in found} == made
    assert len(made) == 2 * 3 + 2 * 2  # two k x k convolutions, two others
