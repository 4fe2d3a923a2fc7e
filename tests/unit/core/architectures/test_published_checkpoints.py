"""Checkpoints that others published: recognised by their keys, and as accurate as they say."""

from __future__ import annotations

import pytest
import torch

from cstar_core import architectures
from cstar_core.architectures.matching import shapes_of
from cstar_core.normalization import NormalizedModel
from tests.support.checkpoints import RESNET20, RESNET_2B2, cifar10_test, published

PARAMETERS = {RESNET20: 269_722, RESNET_2B2: 176_230}
IMAGES = 500


@pytest.mark.parametrize(
    ("file", "name", "mean", "std", "accuracy"),
    [
        (RESNET20, "resnet20_cifar", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 0.9173),
        (
            RESNET_2B2,
            "resnet_2b2_cifar",
            (0.4914, 0.4822, 0.4465),
            (0.2471, 0.2435, 0.2616),
            0.7975,
        ),
    ],
    ids=["resnet20", "resnet_2b2"],
)
def test_a_published_network_is_recognised_and_classifies_as_well_as_published(
    file: str, name: str, mean: tuple[float, ...], std: tuple[float, ...], accuracy: float
) -> None:
    state = published(file)
    architecture = architectures.recognise(shapes_of(state))
    assert architecture.name == name
    network = architectures.load(architecture, state)
    assert sum(parameter.numel() for parameter in network.parameters()) == PARAMETERS[file]
    images, labels = cifar10_test(IMAGES)
    with torch.inference_mode():
        found = NormalizedModel(network, mean, std).eval()(images).argmax(1)
    # The accuracy is that of all 10,000 images; 500 of them lie within three standard errors.
    allowed = 3 * (accuracy * (1 - accuracy) / IMAGES) ** 0.5
    assert float((found == labels).float().mean()) == pytest.approx(accuracy, abs=allowed)
