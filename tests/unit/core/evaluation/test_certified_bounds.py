"""Bounds hold for every point of the ball, and merged operators compute what their chain does."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from cstar_core.architectures import names
from cstar_core.attacks import Norm, ThreatModel, uniform_start
from cstar_core.evaluation.certified.intervals import Interval, around
from cstar_core.evaluation.certified.operators import Convolution, Linear
from cstar_core.evaluation.certified.program import Program, Step, read_program
from cstar_core.export import load
from cstar_core.factorization import factorise
from cstar_core.layers import describe
from cstar_core.normalization import NormalizedModel
from cstar_core.ranks import Inventory, spectra, uniform_plan
from tests.unit.core.export.test_architectures_exported import small, written
from tests.unit.core.lowrank.networks import INPUT, residual_net

norms = pytest.mark.parametrize("norm", ["linf", "l2"])
EPSILON: dict[Norm, float] = {"linf": 0.05, "l2": 0.5}


def point(images: Tensor) -> Interval:
    return Interval(images.double(), images.double())


def operations(program: Program) -> list[str]:
    return [type(step.operation).__name__ for step in program.steps]


def randomised(network: nn.Module, seed: int) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.normal_(generator=generator)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.get_buffer("running_var").uniform_(0.5, 2, generator=generator)
    return network.double().eval()


@st.composite
def convolutions(draw: st.DrawFn, inputs: int, outputs: int) -> nn.Conv2d:
    """Any convolution that leaves something of a small image."""
    kernel = draw(st.sampled_from([1, 1, 3, (3, 1)]))
    stride = draw(st.sampled_from([1, 1, 2]))
    padding: Any = draw(st.sampled_from([0, 1, (1, 0)] + (["same"] if stride == 1 else [])))
    return nn.Conv2d(
        inputs,
        outputs,
        kernel,
        stride=stride,
        padding=padding,
        dilation=draw(st.sampled_from([1, 2])),
        bias=draw(st.booleans()),
    )


@st.composite
def chains(draw: st.DrawFn) -> nn.Module:
    """Two or three convolutions in a row, batch norm between some of them."""
    widths = draw(st.lists(st.integers(1, 4), min_size=3, max_size=4))
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers.append(draw(convolutions(inputs, outputs)))
        if draw(st.booleans()):
            layers.append(nn.BatchNorm2d(outputs))
    return randomised(nn.Sequential(*layers), seed=draw(st.integers(0, 99)))


def image_for(network: nn.Module, seed: int = 0) -> Tensor:
    first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(2, first.in_channels, 37, 36, generator=generator, dtype=torch.float64)


@settings(max_examples=50, deadline=None)
@given(chains())
@torch.no_grad()
def test_a_merged_chain_computes_what_the_chain_does(network: nn.Module) -> None:
    images = image_for(network)
    merged = read_program(network)
    found = merged.bound(point(images))
    expected = network(images)
    scale = float(expected.abs().max()) + 1
    assert found.lower.shape == expected.shape
    assert float((found.lower - expected).abs().max()) < 1e-12 * scale
    assert float((found.upper - expected).abs().max()) < 1e-12 * scale


@settings(max_examples=30, deadline=None)
@given(chains())
def test_merged_bounds_are_no_wider_than_those_through_the_chain(network: nn.Module) -> None:
    images = around(image_for(network), ThreatModel("linf", 0.1))
    merged = read_program(network).bound(images)
    chained = read_program(network, merge=False).bound(images)
    slack = 1e-9 * (1 + float(chained.upper.abs().max()))
    assert bool((merged.lower >= chained.lower - slack).all())
    assert bool((merged.upper <= chained.upper + slack).all())


def factors(bias: bool = True, **movement: Any) -> nn.Sequential:
    """What a compressed 3x3 convolution is made of."""
    return nn.Sequential(
        nn.Conv2d(4, 2, 1, bias=False),
        nn.Conv2d(2, 3, 3, bias=False, **movement),
        nn.Conv2d(3, 5, 1, bias=bias),
        nn.BatchNorm2d(5),
    )


@pytest.mark.parametrize(
    "network",
    [
        factors(padding=1),
        factors(padding=2, dilation=2, bias=False),
        factors(stride=2, padding="valid"),
        factors(padding="same"),
        nn.Sequential(nn.Conv2d(4, 2, 1, stride=2, bias=False), nn.Conv2d(2, 6, 1)),
        nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.Conv2d(6, 5, 1, stride=2)),
        nn.Sequential(nn.Conv2d(4, 6, 1), nn.Conv2d(6, 5, 3, stride=2)),
    ],
)
def test_the_factors_of_a_layer_become_one_operator(network: nn.Module) -> None:
    network = randomised(network, seed=1)
    program = read_program(network)
    assert operations(program) == ["Convolution"]
    images = image_for(network)
    assert torch.allclose(program.bound(point(images)).upper, network(images), atol=1e-12)


@pytest.mark.parametrize(
    "network",
    [
        nn.Sequential(nn.Conv2d(4, 6, 1), nn.Conv2d(6, 5, 3, padding=1)),
        nn.Sequential(nn.Conv2d(4, 6, 1, padding=1, bias=False), nn.Conv2d(6, 5, 3)),
        nn.Sequential(nn.Conv2d(4, 6, 1, stride=2, bias=False), nn.Conv2d(6, 5, 3)),
        nn.Sequential(nn.Conv2d(4, 6, 3, padding="same"), nn.Conv2d(6, 5, 1, stride=2)),
        nn.Sequential(nn.Conv2d(4, 6, 1, groups=2, bias=False), nn.Conv2d(6, 5, 3)),
        nn.Sequential(nn.Conv2d(4, 6, 3), nn.Conv2d(6, 5, 3)),
    ],
    ids=["bias before padding", "padded", "strided", "same", "grouped", "two kernels"],
)
def test_what_has_no_exact_product_of_one_kernel_is_not_merged(network: nn.Module) -> None:
    network = randomised(network, seed=1)
    assert operations(read_program(network)) == ["Convolution", "Convolution"]


def test_the_two_factors_of_a_linear_layer_become_one_operator() -> None:
    pair = nn.Sequential(nn.Flatten(), nn.Linear(12, 3, bias=False), nn.Linear(3, 7))
    network = randomised(pair, seed=2)
    program = read_program(network)
    assert operations(program) == ["Rearrangement", "Linear"]
    images = torch.rand(2, 3, 2, 2, dtype=torch.float64)
    assert torch.allclose(program.bound(point(images)).lower, network(images), atol=1e-12)


def test_a_value_that_is_used_twice_is_not_merged_away() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(4, 3, 1), nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.first(x)
            return y + self.second(y)

    network = randomised(Branches(), seed=0)
    program, images = read_program(network), image_for(network)
    assert operations(program) == ["Convolution", "Convolution", "Sum"]
    assert torch.allclose(program.bound(point(images)).lower, network(images), atol=1e-12)


def extremes(model: nn.Module, images: Tensor, threat: ThreatModel, count: int) -> list[Tensor]:
    """Random points of the ball, and those that the gradient of each logit points to."""
    generator = torch.Generator().manual_seed(0)
    drawn = [
        uniform_start(images, norm=threat.norm, radius=threat.epsilon, generator=generator)
        for _ in range(count)
    ]
    for number in range(model(images).shape[1]):
        point = images.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(model(point)[:, number].sum(), point)
        size = gradient.flatten(1).norm(dim=1).clamp_min(1e-12)[:, None, None, None]
        step = gradient.sign() if threat.norm == "linf" else gradient / size
        drawn += [(images + side * threat.epsilon * step).clamp(0, 1) for side in (-1, 1)]
    return drawn


@norms
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_no_point_of_the_ball_leaves_the_bounds(norm: Norm, seed: int) -> None:
    network = NormalizedModel(residual_net(seed), (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)).double().eval()
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(2, *INPUT, generator=generator).double()
    threat = ThreatModel(norm, EPSILON[norm])
    for merge in (True, False):
        bounds = read_program(network, merge=merge).bound(around(images, threat))
        for perturbed in extremes(network, images, threat, count=10):
            logits = network(perturbed)
            assert bool((bounds.lower <= logits + 1e-9).all())
            assert bool((logits <= bounds.upper + 1e-9).all())


@pytest.mark.parametrize("name", names())
def test_every_architecture_is_read_as_it_computes(name: str, tmp_path: Path) -> None:
    model, images = written(name, tmp_path)
    for read in (model, load(tmp_path)):
        logits = read.double()(images.double()).detach()
        found = read_program(read).bound(point(images))
        assert float((found.lower - logits).abs().max()) < 1e-9 * (1 + float(logits.abs().max()))


def factorised(network: nn.Module, shape: tuple[int, ...], ratio: float) -> nn.Module:
    inventory = Inventory.of(network, describe(network, shape))
    tables = spectra(network, inventory.layers)
    return factorise(network, uniform_plan(inventory, tables, [inventory.budget(ratio)]))


@pytest.mark.parametrize("name", ["resnet20_cifar", "resnet50_imagenet", "vgg16_bn_cifar"])
def test_bounds_of_a_factorised_network_are_much_narrower_when_merged(name: str) -> None:
    network, shape = small(name)
    compressed = factorised(network, shape, 2.0).eval()
    images = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0)).double()
    logits = compressed.double()(images)
    ball, widths = around(images, ThreatModel("linf", 0.001)), {}
    for merge in (True, False):
        bounds = read_program(compressed, merge=merge).bound(ball)
        assert bool((bounds.lower <= logits).all() & (logits <= bounds.upper).all())
        widths[merge] = float((bounds.upper - bounds.lower).mean())
    assert widths[False] > 10 * widths[True]


def test_the_first_convolution_under_l2_has_its_exact_bound_at_borders_too() -> None:
    network = NormalizedModel(nn.Conv2d(2, 3, 3, padding=1), (0.5, 0.2), (0.3, 0.1)).double()
    images = 0.4 + 0.2 * torch.rand(1, 2, 4, 4, dtype=torch.float64)
    epsilon = 0.01  # [0, 1] does not bind
    bounds = read_program(network).bound(around(images, ThreatModel("l2", epsilon)))
    jacobian = torch.autograd.functional.jacobian(network, images).reshape(3, 4, 4, -1)
    reach = epsilon * jacobian.norm(dim=3)
    assert torch.allclose(bounds.upper - network(images), reach, atol=1e-12)
    assert torch.allclose(network(images) - bounds.lower, reach, atol=1e-12)


def test_the_ball_of_l2_is_never_wider_than_its_box() -> None:
    wide = Convolution(torch.ones(1, 1, 3, 3).double(), torch.zeros(1).double(), padding=(1, 1))
    program = Program("x", (Step("y", ("x",), wide),), "y")
    images = torch.full((1, 1, 5, 5), 0.5, dtype=torch.float64)
    for epsilon in (0.1, 0.4, 2.0):
        box = program.bound(around(images, ThreatModel("linf", min(1.0, epsilon))))
        ball = program.bound(around(images, ThreatModel("l2", epsilon)))
        assert bool((ball.lower >= box.lower).all() & (ball.upper <= box.upper).all())


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 500))
def test_margins_through_the_last_operator_are_no_looser_than_differences(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight, bias, lower = (
        torch.randn(*shape, generator=generator).double() for shape in [(4, 6), (4,), (3, 6)]
    )
    last, values = Linear(weight, bias), Interval(lower, lower + 0.5)
    logits = last.bound(values)
    margins = last.gaps_to(2).bound(values).lower
    loose = logits.lower[:, 2:3] - logits.upper
    assert bool((margins >= loose - 1e-12)[:, [0, 1, 3]].all())
