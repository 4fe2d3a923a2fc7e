"""The networks themselves: sizes, key names, shapes of their output, and what a tracer sees."""

from __future__ import annotations

import operator
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn

from cstar_core import architectures
from cstar_core.architectures import Architecture
from cstar_core.architectures.registry import ENTRIES, skeleton

BATCH_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
LEAVES = (
    nn.Conv2d,
    nn.BatchNorm2d,
    nn.Linear,
    nn.ReLU,
    nn.ReLU6,
    nn.MaxPool2d,
    nn.AdaptiveAvgPool2d,
    nn.Flatten,
    nn.Identity,
    nn.Dropout,
)
FUNCTIONS = (operator.add, operator.getitem, F.pad)

PARAMETERS = {
    "resnet8_cifar": 75_290,
    "resnet20_cifar": 269_722,
    "resnet32_cifar": 464_154,
    "resnet44_cifar": 658_586,
    "resnet56_cifar": 853_018,
    "resnet18_cifar": 11_173_962,
    "resnet34_cifar": 21_282_122,
    "resnet50_cifar": 23_520_842,
    "resnet18_imagenet": 11_689_512,
    "resnet34_imagenet": 21_797_672,
    "resnet50_imagenet": 25_557_032,
    "preact_resnet18_cifar": 11_172_170,
    "wideresnet_cifar": 36_479_194,
    "vgg16_bn_cifar": 14_724_042,
    "vgg16_bn_imagenet": 138_365_992,
    "mobilenet_v2_imagenet": 3_504_872,
    "small_cnn_mnist": 312_202,
    "resnet_2b2_cifar": 176_230,
}


def narrow(name: str) -> Architecture:
    """The architecture at width 4, small enough to run on a CPU."""
    arguments: dict[str, int | bool | str] = {"width": 4, "num_classes": 7}
    small = {"hidden": 16, "widen": 2}
    arguments |= {key: value for key, value in small.items() if key in ENTRIES[name].arguments}
    return Architecture(name, arguments)


def batch_norm_keys(name: str) -> set[str]:
    return {f"{name}.{key}" for key in BATCH_NORM}


def linear_keys(name: str) -> set[str]:
    return {f"{name}.weight", f"{name}.bias"}


def resnet_keys(
    *, blocks: list[int], shortcut: str | None, classifier: str, bottleneck: bool = False
) -> set[str]:
    keys = {"conv1.weight"} | linear_keys(classifier) | batch_norm_keys("bn1")
    layers = (1, 2, 3) if bottleneck else (1, 2)
    for stage, depth in enumerate(blocks, start=1):
        for block, layer in product(range(depth), layers):
            keys.add(f"layer{stage}.{block}.conv{layer}.weight")
            keys |= batch_norm_keys(f"layer{stage}.{block}.bn{layer}")
        if shortcut and (bottleneck or stage > 1):
            keys.add(f"layer{stage}.0.{shortcut}.0.weight")
            keys |= batch_norm_keys(f"layer{stage}.0.{shortcut}.1")
    return keys


def preactivation_keys(
    *, stages: list[str], depth: int, shortcuts: list[str], norm: str, classifier: str
) -> set[str]:
    keys = {"conv1.weight", *shortcuts} | linear_keys(classifier) | batch_norm_keys(norm)
    for stage, block, layer in product(stages, range(depth), (1, 2)):
        keys.add(f"{stage}.{block}.conv{layer}.weight")
        keys |= batch_norm_keys(f"{stage}.{block}.bn{layer}")
    return keys


def mobilenet_keys() -> set[str]:
    keys = linear_keys("classifier.1")
    for outside in ("features.0", "features.18"):
        keys |= {f"{outside}.0.weight"} | batch_norm_keys(f"{outside}.1")
    for block in range(1, 18):
        # The first block has no expansion; the last two modules are not in a Sequential.
        inner = ["0"] if block == 1 else ["0", "1"]
        for index in inner:
            prefix = f"features.{block}.conv.{index}"
            keys |= {f"{prefix}.0.weight"} | batch_norm_keys(f"{prefix}.1")
        keys.add(f"features.{block}.conv.{len(inner)}.weight")
        keys |= batch_norm_keys(f"features.{block}.conv.{len(inner) + 1}")
    return keys


def two_path_keys() -> set[str]:
    keys = {"0.weight"} | batch_norm_keys("1") | linear_keys("6") | linear_keys("8")
    for block, (path, index) in product("34", (("a", 1), ("b", 0), ("b", 3))):
        prefix = f"{block}.0.path_{path}"
        keys |= {f"{prefix}.{index}.weight"} | batch_norm_keys(f"{prefix}.{index + 1}")
    return keys


def vgg_keys(*, bias: bool, classifiers: list[str]) -> set[str]:
    # Indices of the convolutions in torchvision's vgg16_bn.
    convolutions = [0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40]
    kinds = ("weight", "bias") if bias else ("weight",)
    keys = {f"features.{index}.{kind}" for index in convolutions for kind in kinds}
    keys |= {key for index in convolutions for key in batch_norm_keys(f"features.{index + 1}")}
    return keys.union(*map(linear_keys, classifiers))


KEYS = {
    **{
        f"resnet{depth}_cifar": resnet_keys(
            blocks=[(depth - 2) // 6] * 3, shortcut=None, classifier="linear"
        )
        for depth in (8, 20, 32, 44, 56)
    },
    **{
        f"resnet{depth}_{images}": resnet_keys(
            blocks=blocks, shortcut=shortcut, classifier=classifier, bottleneck=depth == 50
        )
        for depth, blocks in ((18, [2] * 4), (34, [3, 4, 6, 3]), (50, [3, 4, 6, 3]))
        for images, shortcut, classifier in (
            ("cifar", "shortcut", "linear"),
            ("imagenet", "downsample", "fc"),
        )
    },
    "preact_resnet18_cifar": preactivation_keys(
        stages=[f"layer{stage}" for stage in (1, 2, 3, 4)],
        depth=2,
        shortcuts=[f"layer{stage}.0.shortcut.0.weight" for stage in (2, 3, 4)],
        norm="bn",
        classifier="linear",
    ),
    "wideresnet_cifar": preactivation_keys(
        stages=[f"block{stage}.layer" for stage in (1, 2, 3)],
        depth=4,
        shortcuts=[f"block{stage}.layer.0.convShortcut.weight" for stage in (1, 2, 3)],
        norm="bn1",
        classifier="fc",
    ),
    "vgg16_bn_cifar": vgg_keys(bias=False, classifiers=["classifier"]),
    "vgg16_bn_imagenet": vgg_keys(
        bias=True, classifiers=["classifier.0", "classifier.3", "classifier.6"]
    ),
    "mobilenet_v2_imagenet": mobilenet_keys(),
    "small_cnn_mnist": {
        *(f"feature_extractor.conv{n}.{kind}" for n in (1, 2, 3, 4) for kind in ("weight", "bias")),
        *(f"classifier.fc{n}.{kind}" for n in (1, 2, 3) for kind in ("weight", "bias")),
    },
    "resnet_2b2_cifar": two_path_keys(),
}


def test_every_architecture_has_its_size_and_keys_written_down_here() -> None:
    assert set(architectures.names()) == set(PARAMETERS) == set(KEYS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_default_network_has_the_published_number_of_parameters(name: str) -> None:
    network = skeleton(Architecture(name))
    assert sum(parameter.numel() for parameter in network.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", KEYS)
def test_state_dictionary_has_the_published_key_names(name: str) -> None:
    assert set(skeleton(Architecture(name)).state_dict()) == KEYS[name]


@pytest.mark.parametrize("name", KEYS)
def test_logits_have_one_row_for_each_image(name: str) -> None:
    network = architectures.build(narrow(name)).eval()
    with torch.no_grad():
        assert network(torch.zeros(2, *ENTRIES[name].input_shape)).shape == (2, 7)


@pytest.mark.parametrize("name", KEYS)
def test_traced_graph_has_only_plain_modules_and_simple_operations(name: str) -> None:
    graph = fx.symbolic_trace(skeleton(narrow(name)))
    modules = dict(graph.named_modules())
    for node in graph.graph.nodes:
        if node.op == "call_module":
            assert type(modules[node.target]) in LEAVES
        else:
            assert node.op in ("placeholder", "output") or node.target in FUNCTIONS


@pytest.mark.parametrize("name", ["resnet8_cifar", "preact_resnet18_cifar", "resnet_2b2_cifar"])
def test_traced_network_computes_the_same_logits(name: str) -> None:
    network = architectures.build(narrow(name)).eval()
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(fx.symbolic_trace(network)(images), network(images))


@pytest.mark.parametrize(
    ("name", "arguments", "parameters"),
    [
        ("wideresnet_cifar", {"widen": 4}, 5_849_050),
        ("wideresnet_cifar", {"blocks": 2, "widen": 8}, 10_961_370),
        ("preact_resnet18_cifar", {"final_norm": False}, 11_171_146),
    ],
    ids=["WRN-28-4", "WRN-16-8", "without a final norm"],
)
def test_other_published_sizes_are_met(
    name: str, arguments: dict[str, int | bool | str], parameters: int
) -> None:
    network = skeleton(Architecture(name, arguments))
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


@pytest.mark.parametrize("activated", [True, False])
def test_a_preactivation_shortcut_starts_where_it_is_told(activated: bool) -> None:
    arguments: dict[str, int | bool | str] = {"width": 4, "activated_shortcut": activated}
    network = architectures.build(Architecture("preact_resnet18_cifar", arguments)).eval()
    block = network.get_submodule("layer2.0")
    with torch.no_grad():
        block.get_parameter("conv2.weight").zero_()  # what is left is the shortcut
        x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
        start = F.relu(block.get_submodule("bn1")(x)) if activated else x
        expected = F.conv2d(start, block.get_parameter("shortcut.0.weight"), stride=2)
        torch.testing.assert_close(block(x), expected)


def test_mobilenet_channels_are_those_of_the_width_multiplier_a_half() -> None:
    # The paper's multiplier .5: stem 16, 1,968,680 parameters with 1,000 classes.
    network = skeleton(Architecture("mobilenet_v2_imagenet", {"width": 16}))
    assert sum(parameter.numel() for parameter in network.parameters()) == 1_968_680


@pytest.mark.parametrize("name", KEYS)
def test_stem_and_classifier_name_the_first_convolution_and_the_last_linear_layer(
    name: str,
) -> None:
    modules = dict(skeleton(Architecture(name)).named_modules())
    convolutions = [key for key, module in modules.items() if isinstance(module, nn.Conv2d)]
    linears = [key for key, module in modules.items() if isinstance(module, nn.Linear)]
    assert architectures.stem_name(Architecture(name)) == convolutions[0]
    assert architectures.classifier_name(Architecture(name)) == linears[-1]


def test_option_a_shortcut_subsamples_and_pads_channels_equally() -> None:
    block = architectures.build(Architecture("resnet8_cifar")).get_submodule("layer2.0.shortcut")
    x = torch.rand(1, 16, 6, 6, generator=torch.Generator().manual_seed(0))
    y = block(x)
    assert y.shape == (1, 32, 3, 3)
    assert torch.equal(y[:, 8:24], x[:, :, ::2, ::2])
    assert not y[:, :8].any()
    assert not y[:, 24:].any()


def test_odd_width_still_adds_up() -> None:
    network = architectures.build(Architecture("resnet8_cifar", {"width": 3}))
    assert network(torch.zeros(2, 3, 16, 16)).shape == (2, 10)


def test_same_seed_builds_the_same_weights_and_another_seed_others() -> None:
    first, again, other = (
        architectures.build(Architecture("resnet8_cifar"), seed=seed).state_dict()["conv1.weight"]
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_building_leaves_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    architectures.build(Architecture("vgg16_bn_cifar", {"width": 2, "bias": True}))
    assert torch.equal(torch.get_rng_state(), before)


def test_every_parameter_and_buffer_is_initialised() -> None:
    for name in architectures.names():
        state = architectures.build(narrow(name)).state_dict()
        assert all(bool(tensor.isfinite().all()) for tensor in state.values())
        assert all(tensor.abs().max() < 10 for tensor in state.values())


def test_convolutions_start_with_variance_two_over_fan_out() -> None:
    weight = architectures.build(Architecture("resnet18_cifar")).state_dict()[
        "layer4.1.conv2.weight"
    ]
    assert weight.var().item() == pytest.approx(2 / (512 * 9), rel=0.01)


def test_built_network_is_in_training_mode() -> None:
    assert architectures.build(Architecture("resnet8_cifar")).training
