"""Which channels are found to belong together, and which are left whole, with the reason."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from cstar_core.architectures import Architecture, names
from cstar_core.architectures.registry import skeleton
from cstar_core.pruning import Coupling, Member, coupling
from tests.unit.core.pruning.networks import network


def touching(found: Coupling, group: str) -> set[str]:
    """Names of the modules that a group runs through."""
    return {member.name for member in found.members if group in (member.inputs, member.outputs)}


def reasons(found: Coupling) -> dict[str, str]:
    return {group.name: group.reason for group in found.groups}


def test_a_stage_with_projection_shortcuts_is_one_group() -> None:
    found = coupling(network("option B"))

    assert touching(found, "layer2.0.conv2") == {
        "layer2.0.conv2",
        "layer2.0.bn2",
        "layer2.0.shortcut.0",
        "layer2.0.shortcut.1",
        "layer2.1.conv1",
        "layer2.1.conv2",
        "layer2.1.bn2",
        "layer3.0.conv1",
        "layer3.0.shortcut.0",
    }


def test_the_inner_channels_of_a_block_are_a_group_of_their_own() -> None:
    found = coupling(network("option B"))

    assert touching(found, "layer1.0.conv1") == {
        "layer1.0.conv1",
        "layer1.0.bn1",
        "layer1.0.conv2",
    }


def test_shortcuts_that_pad_channels_keep_their_stages_whole() -> None:
    found = coupling(network("option A"))

    assert {group.name for group in found.prunable} == {
        "layer1.0.conv1",
        "layer2.0.conv1",
        "layer3.0.conv1",
    }
    padded = [name for name, reason in reasons(found).items() if "option A" in reason]
    assert padded == ["conv1", "layer2.0.conv2", "layer3.0.conv2"]


def test_a_chain_has_one_group_for_each_convolution() -> None:
    found = coupling(network("vgg"))

    assert len(found.prunable) == 13
    assert touching(found, "features.40") == {"features.40", "features.41", "classifier"}


def test_a_depthwise_convolution_ties_its_input_to_its_output() -> None:
    found = coupling(network("depthwise"))

    assert touching(found, "expand") == {"expand", "bn1", "depthwise", "bn2", "project"}
    assert Member("depthwise", "depthwise", "expand", "expand") in found.members


def test_flattening_spreads_a_channel_over_features() -> None:
    found = coupling(network("depthwise"))

    assert Member("hidden", "linear", "stem", "hidden", spread=16) in found.members
    assert touching(found, "hidden") == {"hidden", "head"}


def test_a_pre_activation_block_ties_what_is_added() -> None:
    found = coupling(network("pre-activation"))

    assert touching(found, "conv2") == {"conv2", "shortcut", "bn3", "linear"}
    assert touching(found, "conv1") == {"conv1", "bn2", "conv2"}


@pytest.mark.parametrize("name", names())
def test_images_and_classes_are_never_pruned(name: str) -> None:
    found = coupling(skeleton(Architecture(name)))

    given = [name for name, reason in reasons(found).items() if "images" in reason]
    logits = [name for name, reason in reasons(found).items() if "classes" in reason]
    assert (len(given), len(logits)) == (1, 1)
    assert found.prunable


class Odd(nn.Module):
    """Holds two convolutions and a head, for networks that do unusual things between them."""

    def __init__(self, groups: int = 1) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 8, 3, padding=1)
        self.two = nn.Conv2d(8, 8, 3, padding=1, groups=groups)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(8, 4)

    def between(self, x: Tensor) -> Tensor:
        return self.two(x)

    def forward(self, x: Tensor) -> Tensor:
        x = self.between(self.one(x))
        return self.head(torch.flatten(self.pool(x), 1))


class Concatenating(Odd):
    def between(self, x: Tensor) -> Tensor:
        return torch.cat([x[:, :4], self.two(x)[:, 4:]], dim=1)


class Twice(Odd):
    def between(self, x: Tensor) -> Tensor:
        return self.two(self.two(x))


class Shuffling(Odd):
    def between(self, x: Tensor) -> Tensor:
        return self.two(x.flip(1))


@pytest.mark.parametrize(
    ("odd", "whole"),
    [
        (Odd(groups=2), {"one": "grouped", "two": "grouped"}),
        (Concatenating(), {"one": "getitem", "two": "getitem"}),
        (Twice(), {"one": "more than once", "two": "more than once"}),
        (Shuffling(), {"one": "flip"}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_not_understood_stays_whole_with_the_reason(
    odd: nn.Module, whole: dict[str, str]
) -> None:
    found = reasons(coupling(odd))

    for name, words in whole.items():
        assert words in found[name]


def test_the_reader_of_something_unknown_has_inputs_of_its_own() -> None:
    found = coupling(Shuffling())

    assert "unclear" in reasons(found)["two.input"]
    assert [group.name for group in found.prunable] == ["two"]
