"""Every architecture can be written, loaded by the shipped loader and, by family, run as ONNX."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from cstar_core.architectures import Architecture, names, registry
from cstar_core.export import export_onnx, load, onnx_parity, write_model
from cstar_core.normalization import NormalizedModel

SMALL: dict[str, int | bool | str] = {"width": 4, "hidden": 8, "blocks": 1, "widen": 2}
# One of each kind of block; the option A shortcut is among the operations of `networks.py`.
FAMILIES = (
    "resnet50_imagenet",
    "preact_resnet18_cifar",
    "wideresnet_cifar",
    "vgg16_bn_cifar",
    "mobilenet_v2_imagenet",
    "small_cnn_mnist",
    "resnet_2b2_cifar",
)


def small(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    """A narrow network with batch statistics of its own in eval mode, and the shape it takes."""
    entry = registry.find(name)
    arguments = {key: value for key, value in SMALL.items() if key in entry.arguments}
    network = registry.build(Architecture(name, {**arguments, "num_classes": 10}), seed=1).eval()
    generator = torch.Generator().manual_seed(2)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.get_buffer("running_mean").normal_(0, 0.1, generator=generator)
            module.get_buffer("running_var").uniform_(0.5, 2, generator=generator)
    channels, side, _ = entry.input_shape
    return network, (channels, min(side, 32), min(side, 32))


def written(name: str, directory: Path) -> tuple[nn.Module, Tensor]:
    """The network behind its normalisation, exported to `directory`, and three images for it."""
    network, shape = small(name)
    mean, std = [0.4] * shape[0], [0.3] * shape[0]
    write_model(directory, network, input_shape=shape, mean=mean, std=std, num_classes=10)
    images = torch.rand(3, *shape, generator=torch.Generator().manual_seed(3))
    return NormalizedModel(network, mean, std).eval(), images


@pytest.mark.parametrize("name", names())
def test_the_shipped_loader_rebuilds_every_architecture(name: str, tmp_path: Path) -> None:
    model, images = written(name, tmp_path)
    with torch.inference_mode():
        assert torch.equal(load(tmp_path)(images), model(images))


@pytest.mark.parametrize("name", FAMILIES)
def test_onnx_runtime_agrees_with_pytorch_on_every_family(name: str, tmp_path: Path) -> None:
    model, images = written(name, tmp_path)
    export_onnx(load(tmp_path), images.shape[1:], tmp_path / "model.onnx")
    with torch.inference_mode():
        scale = float(model(images).abs().max())
    parity = onnx_parity(tmp_path / "model.onnx", model, images)
    assert parity.max_abs_difference <= 1e-5 * scale
    assert parity.agreement == 1
