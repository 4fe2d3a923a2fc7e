"""What the screen of weights finds, and what it is known to miss."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from cstar_core.architectures import Architecture, build, load
from cstar_core.evaluation.spectra import (
    CLASS_SCORE,
    FEWEST_CHANNELS,
    channel_deviations,
    channel_lipschitz,
    class_deviations,
    screen,
)
from cstar_core.files.checkpoints import read_checkpoint
from stack.demo.train_checkpoint import ARCHITECTURE, CHECKPOINT
from tests.support import checkpoints

from ..lowrank.networks import ResidualNet, residual_net
from .backdoors import TARGET, clean_accuracy, success_rate, trained


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 1, 1), (4, 3, 3, 3)])
def test_a_channel_moves_no_more_than_its_bound(shape: tuple[int, ...]) -> None:
    weight = random(*shape)
    bounds = channel_lipschitz(weight)
    for channel, kernel in enumerate(weight.flatten(2) if weight.dim() > 2 else weight[..., None]):
        assert float(bounds[channel]) == pytest.approx(float(torch.linalg.svdvals(kernel)[0]))


def planted(where: str) -> ResidualNet:
    """A network in which channel 5 of the stem amplifies 200 times as much as it did."""
    network = residual_net()
    with torch.no_grad():
        (network.stem if where == "convolution" else network.norm).weight[5] *= 200
    return network


@pytest.mark.parametrize("where", ["convolution", "batch norm"])
def test_a_planted_channel_is_flagged_with_its_layer(where: str) -> None:
    found = screen(planted(where))
    assert [flag.code for flag in found.flags] == ["spectral_outlier"]
    assert "channel 5 of layer stem" in found.flags[0].detail
    assert found.layers[0].largest_channel == 5


def test_a_network_without_a_planted_channel_is_not_flagged() -> None:
    found = screen(residual_net())
    assert found.flags == ()
    assert [layer.name for layer in found.layers] == ["stem", "down", "wide", "shortcut", "fc"]


def test_a_layer_has_the_singular_values_of_its_unfolding() -> None:
    network = residual_net()
    for layer in screen(network).layers[1:4]:  # no batch norm after these
        weight = network.get_parameter(f"{layer.name}.weight").detach().double().flatten(1)
        values = torch.linalg.svdvals(weight)
        assert layer.top_singular_value == pytest.approx(float(values[0]), rel=1e-6)
        assert layer.median_singular_value == pytest.approx(float(values.median()), rel=1e-6)


def test_scores_do_not_depend_on_the_scale_of_a_layer() -> None:
    convolution, rows = random(16, 4, 3, 3), random(10, 32)
    assert torch.allclose(channel_deviations(convolution), channel_deviations(1e-3 * convolution))
    assert torch.allclose(class_deviations(rows), class_deviations(7 * rows))


def test_a_row_common_to_all_classes_changes_no_score() -> None:
    rows = random(10, 32)
    assert torch.allclose(class_deviations(rows), class_deviations(rows + 5 * random(32, seed=1)))


def test_class_scores_of_equally_distributed_rows_seldom_reach_the_limit() -> None:
    largest = torch.stack(
        [class_deviations(random(10, 64, seed=seed)).max() for seed in range(500)]
    )
    assert float((largest > CLASS_SCORE).double().mean()) <= 0.02


def test_channels_that_are_equal_or_zero_are_no_outliers() -> None:
    equal = torch.ones(12, 4, 3, 3).double()
    assert float(channel_deviations(equal).abs().max()) < 1e-6
    pruned = torch.cat([random(5, 4, 3, 3), torch.zeros(20, 4, 3, 3).double()])
    assert float(channel_deviations(pruned).max()) == pytest.approx(
        float(channel_deviations(pruned[:5]).max())
    )


def test_few_channels_and_zero_layers_have_no_score() -> None:
    network = nn.Sequential(nn.Conv2d(3, FEWEST_CHANNELS - 1, 3), nn.Conv2d(7, 16, 1))
    with torch.no_grad():
        network[1].weight.zero_()  # type: ignore[operator, union-attr]
    found = screen(network)
    assert [layer.channel_score for layer in found.layers] == [None, None]
    assert found.flags == ()


def test_a_network_that_cannot_be_traced_is_read_all_the_same() -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.layer(x if x.sum() > 0 else -x)
            return result

    assert [layer.name for layer in screen(Branching()).layers] == ["layer"]


def test_the_report_section_is_json_and_says_what_is_missed() -> None:
    section = json.loads(json.dumps(screen(planted("batch norm")).to_json()))
    assert set(section["layers"][0]) == {
        "name",
        "top_singular_value",
        "median_singular_value",
        "largest_channel",
        "channel_score",
    }
    assert section["flags"][0]["code"] == "spectral_outlier"
    assert "misses most backdoors" in section["limits"][0]


@pytest.mark.parametrize("name", ["resnet18_cifar", "mobilenet_v2_imagenet"])
def test_a_freshly_initialised_network_is_not_flagged(name: str) -> None:
    assert screen(build(Architecture(name, {"width": 8}), seed=0)).flags == ()


def test_the_network_of_the_demo_is_not_flagged() -> None:
    assert screen(load(ARCHITECTURE, read_checkpoint(CHECKPOINT))).flags == ()


@pytest.mark.parametrize(
    ("architecture", "file"),
    [("resnet20_cifar", checkpoints.RESNET20), ("resnet_2b2_cifar", checkpoints.RESNET_2B2)],
)
def test_published_networks_are_not_flagged(architecture: str, file: str) -> None:
    network = load(Architecture(architecture), checkpoints.published(file))
    assert screen(network).flags == ()


def test_a_backdoor_that_a_quarter_of_the_images_carried_is_flagged_with_its_target() -> None:
    model = trained(poisoned_share=0.25)
    assert clean_accuracy(model) > 0.95
    assert success_rate(model) > 0.95
    (flag,) = screen(model.network).flags
    assert f"class {TARGET} of layer linear" in flag.detail


def test_the_same_network_without_the_backdoor_is_not_flagged() -> None:
    model = trained(poisoned_share=0.0)
    assert success_rate(model) < 0.05
    assert screen(model.network).flags == ()


def test_a_classifier_of_equal_rows_has_finite_scores() -> None:
    assert class_deviations(torch.ones(10, 4).double()).isfinite().all()
    assert channel_deviations(torch.zeros(12, 4, 3, 3).double()).isfinite().all()
