"""Factorised networks: same function as the projected weights, balanced, loadable."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cstar_core.errors import InvalidModel
from cstar_core.factorization import factorise, restructure
from cstar_core.layers import count_macs, count_parameters, describe
from cstar_core.projection import Ranks, project
from cstar_core.ranks import Inventory, RankPlan, spectra
from cstar_core.ranks.plan import assemble

from .networks import INPUT, residual_net


def plan_for(
    network: nn.Module, choices: dict[str, Ranks], shape: tuple[int, ...] = INPUT
) -> RankPlan:
    layers = describe(network, shape, stem=None)
    return assemble(
        Inventory.of(network, layers),
        spectra(network, layers),
        choices,
        name="test",
        strategy="test",
        scope="linear",
        budgets=(),
        settings={},
    )


def factors(network: nn.Module, name: str) -> list[nn.Conv2d | nn.Linear]:
    """The factors of one layer, first to last."""
    parts = list(network.get_submodule(name).children())
    return [part for part in parts if isinstance(part, nn.Conv2d | nn.Linear)]


CHOICES = {"down": Ranks(5, 4), "wide": Ranks(6, 7), "shortcut": Ranks(4, 4), "fc": Ranks(3, 3)}


@st.composite
def convolutions(draw: st.DrawFn) -> nn.Conv2d:
    """Any kernel up to 3x3, stride, padding and dilation, 4 channels to 5, random weights."""

    def pair(low: int, high: int) -> tuple[int, int]:
        return draw(st.integers(low, high)), draw(st.integers(low, high))

    dense = nn.Conv2d(
        4,
        5,
        pair(1, 3),
        stride=pair(1, 3),
        padding=pair(0, 2),
        dilation=pair(1, 2),
        bias=draw(st.booleans()),
        padding_mode=draw(st.sampled_from(["zeros", "reflect", "circular"])),
    )
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    with torch.no_grad():
        for parameter in dense.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 3)
    return dense


@settings(max_examples=60, deadline=None, derandomize=True)
@given(convolutions(), st.integers(1, 5), st.integers(1, 4))
def test_the_factors_compute_the_convolution_with_the_projected_weight(
    dense: nn.Conv2d, r_out: int, r_in: int
) -> None:
    ranks = Ranks(r_out, r_in)
    if dense.kernel_size == (1, 1):
        ranks = Ranks(min(ranks), min(ranks))
    network = nn.Sequential(dense)
    factorised = factorise(network, plan_for(network, {"0": ranks}, shape=(4, 9, 8)), hooi_sweeps=0)
    images = torch.randn(2, 4, 9, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = factorised(images)
        dense.weight.copy_(project(dense.weight, ranks))
        torch.testing.assert_close(found, dense(images), rtol=1e-5, atol=1e-5)


def test_a_factorised_linear_layer_computes_the_projected_one() -> None:
    network = residual_net()
    factorised = factorise(network, plan_for(network, {"fc": Ranks(3, 3)}))
    images = torch.rand(4, *INPUT, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        network.fc.weight.copy_(project(network.fc.weight, Ranks(3, 3)))
        torch.testing.assert_close(factorised(images), network(images), rtol=1e-5, atol=1e-5)


def test_a_convolution_becomes_three_plain_ones() -> None:
    network = residual_net()
    factorised = factorise(network, plan_for(network, CHOICES))
    wide = factors(factorised, "wide")
    assert [type(part) for part in wide] == [nn.Conv2d] * 3
    assert [tuple(part.weight.shape) for part in wide] == [
        (7, 12, 1, 1),
        (6, 7, 3, 3),
        (16, 6, 1, 1),
    ]
    assert [part.bias is not None for part in wide] == [False, False, True]


def test_full_ranks_leave_the_network_what_it_was() -> None:
    network = residual_net()
    full = {layer.name: layer.max_ranks for layer in describe(network, INPUT)}
    images = torch.rand(4, *INPUT, generator=torch.Generator().manual_seed(1))
    factorised = factorise(network, plan_for(network, full))
    torch.testing.assert_close(factorised(images), network(images), rtol=1e-4, atol=1e-5)


def test_the_network_given_is_not_touched() -> None:
    network = residual_net()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    factorised = factorise(network, plan_for(network, CHOICES))
    with torch.no_grad():
        for parameter in factorised.parameters():
            parameter.zero_()
    after = network.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_the_costs_are_those_of_the_plan() -> None:
    network = residual_net()
    plan = plan_for(network, CHOICES)
    factorised = factorise(network, plan)
    assert count_parameters(factorised) == plan.parameters
    assert count_macs(factorised, INPUT) == plan.macs


@pytest.mark.parametrize("name", list(CHOICES))
def test_the_factors_of_a_layer_have_equal_norms(name: str) -> None:
    network = residual_net()
    factorised = factorise(network, plan_for(network, CHOICES))
    norms = torch.stack([part.weight.norm() for part in factors(factorised, name)])
    torch.testing.assert_close(norms, norms.mean().expand_as(norms))


def test_other_weights_can_take_the_place_of_the_networks_own() -> None:
    network = residual_net()
    other = torch.randn(16, 12, 3, 3, generator=torch.Generator().manual_seed(3))
    factorised = factorise(
        network, plan_for(network, CHOICES), weights={"wide": other}, hooi_sweeps=0
    )
    first, core, last = (part.weight.detach() for part in factors(factorised, "wide"))
    product = torch.einsum("op,pqhw,qi->oihw", last.flatten(1), core, first.flatten(1))
    torch.testing.assert_close(product, project(other, CHOICES["wide"]), rtol=1e-4, atol=1e-5)


def test_a_weight_of_zeros_gives_finite_factors() -> None:
    network = residual_net()
    with torch.no_grad():
        network.wide.weight.zero_()
        network.shortcut.weight.zero_()
    factorised = factorise(network, plan_for(network, CHOICES))
    assert all(bool(parameter.isfinite().all()) for parameter in factorised.parameters())


def test_factorising_draws_nothing_from_the_global_generator() -> None:
    network = residual_net()
    plan = plan_for(network, CHOICES)
    before = torch.get_rng_state()
    factorise(network, plan)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_mode_and_dtype_of_the_network_are_kept() -> None:
    network = residual_net().double().train()
    factorised = factorise(network, plan_for(network, CHOICES))
    assert all(module.training for module in factorised.modules())
    assert {parameter.dtype for parameter in factorised.parameters()} == {torch.float64}


def test_weights_load_into_a_restructured_network() -> None:
    network = residual_net()
    plan = plan_for(network, CHOICES)
    factorised = factorise(network, plan)
    empty = restructure(residual_net(seed=5), plan)
    empty.load_state_dict(factorised.state_dict())
    images = torch.rand(4, *INPUT, generator=torch.Generator().manual_seed(1))
    assert torch.equal(empty(images), factorised(images))


def test_factors_can_be_trained() -> None:
    network = residual_net()
    factorised = factorise(network, plan_for(network, CHOICES))
    factorised(torch.rand(2, *INPUT)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in factorised.parameters())


def test_a_plan_for_another_network_is_refused() -> None:
    plan = plan_for(residual_net(), CHOICES)
    with pytest.raises(InvalidModel, match="not in the network"):
        factorise(nn.Sequential(nn.Conv2d(3, 4, 3)), plan)


def test_ranks_that_do_not_fit_the_weight_are_refused() -> None:
    network = residual_net()
    plan = plan_for(network, {"wide": Ranks(6, 7)})
    layers = tuple(
        replace(layer, ranks=Ranks(40, 7)) if layer.name == "wide" else layer
        for layer in plan.layers
    )
    with pytest.raises(InvalidModel, match="do not fit"):
        factorise(network, replace(plan, layers=layers))


def test_a_layer_that_is_already_factorised_is_refused() -> None:
    network = residual_net()
    plan = plan_for(network, CHOICES)
    with pytest.raises(InvalidModel, match="Sequential"):
        factorise(factorise(network, plan), plan)
